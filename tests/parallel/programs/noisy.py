"""A network of a few layers whose copies of an image differ by dropout and drop-path as well."""

import keras

from ba_dist.models.layers.dropout import InstanceDropout, InstanceDropPath


def network(image_shape, classes, norm):
    images = keras.Input(image_shape, name="images")
    # Every layer has a name: TensorFlow orders sums by names, and Keras would number them on from
    # network to network of a process.
    x = y = keras.layers.Conv2D(8, 5, strides=4, use_bias=False, name="first")(images)
    for i in range(2):
        z = keras.layers.ReLU(name=f"relu{i}")(norm(name=f"norm{i}")(y))
        z = InstanceDropout(0.3, f"dropout{i}", name=f"dropout{i}")(z)
        z = keras.layers.Conv2D(8, 3, padding="same", name=f"convolution{i}")(z)
        z = InstanceDropPath(f"edge{i}", name=f"edge{i}")(z)
        y = keras.layers.Add(name=f"sum{i}")([x, y, z])
    y = keras.layers.GlobalAveragePooling2D(name="pool")(y)
    return keras.Model(images, keras.layers.Dense(classes, name="logits")(y))
