"""`ba-dist` whose networks for small images have no blocks; imported by a program, for that one.

For tests of what becomes of a run, whatever it trains: two thirds of a short training are the
building of its graph, layer by layer.
"""

from ba_dist import runtime

prepare = runtime.prepare


def prepare_shallow(*arguments):
    """Where TensorFlow is loaded; the networks can be, too, from then on."""
    tf = prepare(*arguments)
    from ba_dist.models import resnet

    whole = resnet.cifar_resnet
    if whole.__name__ != "shallow":

        def shallow(depth, *facts, **more):
            return whole(2, *facts, **more)  # stem, normalisation, pool and logits

        resnet.cifar_resnet = shallow
    return tf


runtime.prepare = prepare_shallow

if __name__ == "__main__":
    from ba_dist.cli import main

    main()
