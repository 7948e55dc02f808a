"""Errors in the words of the API, the same on all ranks."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ba_dist.comm import Comm
from ba_dist.errors import ConfigError, UserError

_FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")


def parameters(text: str) -> str:
    """`--batch-size` as `batch_size`: every flag is named after a field; commands stay as they are.

    Example:
        >>> parameters("--batch-size is 0; see `ba-dist train quickstart --help`")
        'batch_size is 0; see `ba-dist train quickstart --help`'
    """
    parts = text.split("`")
    parts[::2] = [_FLAG.sub(lambda match: match[1].replace("-", "_"), part) for part in parts[::2]]
    return "`".join(parts)


@contextmanager
def in_parameters() -> Iterator[None]:
    """Raises the errors of its block again, with the names of parameters in place of flags."""
    try:
        yield
    except UserError as error:
        told = type(error)(parameters(f"{error}"))
        told.agreed = error.agreed
        raise told from None


def same_on_all_ranks(values: Mapping[str, Any], comm: Comm) -> None:
    """Compares parameters; collective over the world.

    Args:
        values: name → value, that are told apart by what `repr` gives.
        comm: the world.

    Raises:
        ConfigError: on all ranks, naming the first difference.
    """
    texts = {name: repr(value) for name, value in values.items()}
    first, *rest = comm.world.gather_objects(texts)
    for rank, others in enumerate(rest, 1):
        for name in (name for name in first if others.get(name) != first[name]):
            raise ConfigError(
                f"{name} differs between ranks: {first[name]} on rank 0, {others.get(name)} on rank"
                f" {rank}; all ranks must pass the same"
            )
