"""Arithmetic: in which precision a network computes and keeps its weights."""

from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Precision:
    """Arithmetic of the network, of its variables, and whether the loss is scaled."""

    compute: str
    variables: str
    scaled: bool


PRECISIONS = {
    "fp32": Precision("float32", "float32", False),
    "bf16": Precision("mixed_bfloat16", "float32", False),
    "fp16": Precision("mixed_float16", "float32", True),
    "fp64": Precision("float64", "float64", False),
}


def set_precision(name: str) -> Precision:
    """Makes Keras build networks in this precision."""
    precision = PRECISIONS[name]
    keras.config.set_floatx(precision.variables)
    keras.config.set_dtype_policy(precision.compute)
    return precision
