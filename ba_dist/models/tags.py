"""What a variable is, for the update rule: said by the layer that owns it, not by its name.

    DECAY    weight decay applies: kernels and embeddings; not biases, not normalisation, not
             depthwise kernels
    ADAPT    LARS adapts the rate of the variable: the same ones, and depthwise kernels

    INSTANCE the variable holds a row for each instance of this rank (the state of an LSTM): it is
             not the same on all ranks, and no average over them makes sense

A layer of one's own says it by an attribute `tags`: {attribute: (tag, …)}, for example
`tags = {"state": (INSTANCE,)}`.
"""

from collections.abc import Iterator
from typing import Any

DECAY, ADAPT, INSTANCE = "decay", "adapt", "instance"

# Attributes of Keras' own layers that hold what is multiplied with the input.
_KERNELS = ("kernel", "pointwise_kernel", "recurrent_kernel", "embeddings")


def tag(model: Any) -> None:
    """Marks every variable of a network; `carries` asks for it."""
    for layer in layers(model):
        for name, tags in _tags_of(layer).items():
            variable = getattr(layer, name, None)
            if variable is not None:
                variable.ba_dist_tags = frozenset(tags)


def carries(variable: Any, wanted: str) -> bool:
    """Whether a Keras variable has this tag.

    Args:
        variable: of a network that was tagged; others have no tags.
        wanted: DECAY, ADAPT or INSTANCE.
    """
    return wanted in getattr(variable, "ba_dist_tags", ())


def layers(model: Any) -> Iterator[Any]:
    """Every layer of a network, those inside of other layers as well."""
    return iter(model._flatten_layers(include_self=False, recursive=True))


def _tags_of(layer: Any) -> dict[str, tuple[str, ...]]:
    import keras

    if own := getattr(layer, "tags", None):
        return dict(own)
    kernel = (DECAY, ADAPT)
    found: dict[str, tuple[str, ...]] = dict.fromkeys(_KERNELS, kernel)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        found["kernel"] = (ADAPT,)
    if isinstance(layer, keras.layers.SeparableConv2D):
        found["depthwise_kernel"] = (ADAPT,)
    return found
