"""The tree of values, what each may be, and what of it makes two runs the same."""

from ba_dist.config.epochs import adapted
from ba_dist.config.identity import COMPUTATION, check_computation, computed_part, differences
from ba_dist.config.option import Option, check
from ba_dist.config.schema import (
    BASELINES,
    PARTS,
    Augment,
    Batch,
    Config,
    Data,
    Model,
    Optimizer,
    Placement,
    Run,
    options,
)
from ba_dist.config.tree import (
    batch_ratio,
    from_dict,
    layout_of,
    override,
    plan_steps,
    to_dict,
)

__all__ = [
    "BASELINES",
    "COMPUTATION",
    "check_computation",
    "Batch",
    "Placement",
    "Data",
    "Augment",
    "Model",
    "Optimizer",
    "Run",
    "Config",
    "Option",
    "PARTS",
    "options",
    "check",
    "adapted",
    "batch_ratio",
    "override",
    "to_dict",
    "from_dict",
    "layout_of",
    "plan_steps",
    "computed_part",
    "differences",
]
