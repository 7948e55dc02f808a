"""Distributed batch augmentation on TensorFlow and Horovod/MPI.

"Augment Your Batch: Improving Generalization Through Instance Repetition" (CVPR 2020), section 4.5.

The public names below are loaded when they are first used, so that `import ba_dist` and
`ba-dist --help` cost nothing: TensorFlow, MPI and Horovod are imported only where they are needed.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Augment": "config",
    "Config": "config",
    "Data": "config",
    "Layout": "rules.layout",
    "Permutation": "rules.order",
    "augmentation_keys": "rules.keys",
    "override": "config",
    "recipe": "recipes",
    "train": "training",
    "load_run": "api.runs",
    "start": "comm",
    "GhostBatchNormalization": "models.layers.ghost_batch_norm",
    "BatchAugmentation": "api.pipeline",
    "input_pipeline": "api.pipeline",
    "distributed": "api.fit.optimizer",
    "callbacks": "api.fit.together",
    "WarmUp": "api.fit.warm_up",
}
__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ba_dist' has no attribute {name!r}; it has {__all__}")
    return getattr(importlib.import_module(f"ba_dist.{_HOME[name]}"), name)
