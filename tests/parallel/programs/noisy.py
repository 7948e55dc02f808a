"""A network of a few layers whose copies of an image differ by dropout and drop-path as well."""

import keras

from ba_dist.models.layers.dropout import InstanceDropout, InstanceDropPath


def network(image_shape, classes, norm):
    images = keras.Input(image_shape)
    x = y = keras.layers.Conv2D(8, 5, strides=4, use_bias=False, name="first")(images)
    for i in range(2):
        z = keras.layers.ReLU()(norm(name=f"norm{i}")(y))
        z = InstanceDropout(0.3, f"dropout{i}")(z)
        z = keras.layers.Conv2D(8, 3, padding="same", name=f"convolution{i}")(z)
        y = keras.layers.Add()([x, y, InstanceDropPath(f"edge{i}")(z)])
    y = keras.layers.GlobalAveragePooling2D()(y)
    return keras.Model(images, keras.layers.Dense(classes, name="logits")(y))
