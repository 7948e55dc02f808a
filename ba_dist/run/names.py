"""What the numbers of a run are called where people look at them."""

from collections.abc import Mapping
from typing import Any


def common_name(name: str) -> str:
    """What a number of an evaluation is called in training, so that both are in one picture."""
    return {"val_top1": "accuracy"}.get(name, name.removeprefix("val_"))


_SHARES = ("top1", "top5", "accuracy")


def is_share(name: str) -> bool:
    """Whether a number is a share of the samples or tokens, and so is shown in percent."""
    return name.endswith(_SHARES)


def numbers(event: str, values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an event by names like `train/loss`, `validation/loss`, `train/epoch_loss`.

    Args:
        event: step, epoch, straggler.
        values: of any kind; those that are no numbers are left out.
    """
    named = {}
    for name, value in values.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if event == "step":
                named[f"train/{name}"] = value
            elif name.startswith("val_"):
                named[f"validation/{common_name(name)}"] = value
            else:
                named[f"train/{event}_{name}"] = value
    return named
