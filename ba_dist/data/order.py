"""Which order the samples of a run are in: mixed, or as the streams of a text."""

from collections.abc import Callable

from ba_dist.config import Config
from ba_dist.data.sources import DatasetInfo
from ba_dist.data.sources.text import TextInfo
from ba_dist.rules import streams
from ba_dist.rules.order import Shuffle, shuffle


def order_of(config: Config, info: DatasetInfo) -> Shuffle:
    """The order of the samples in each epoch of a run.

    Args:
        config: of the run.
        info: of its dataset.
    """
    if isinstance(info, TextInfo):
        return streams.streams(config.batch.batch_size, info.span)
    data = config.data
    return shuffle(data.shuffle, data.shuffle_block, data.shuffle_window)


def rate_factor(config: Config, info: DatasetInfo, samples: int) -> Callable[[int], float]:
    """Step, from 0 → factor on the learning rate.

    A step of a text whose spans have l tokens in place of --bptt moves the weights by l / bptt as
    much, so that a token counts as much in a short one; 1 for all other data.

    Args:
        config: of the run.
        info: of its dataset.
        samples: to train on.

    Source: Merity et al. 2018 (arXiv:1708.02182), section 5.
    """
    if not isinstance(info, TextInfo):
        return lambda step: 1.0
    size, span = config.batch.batch_size, info.span
    steps = samples // size

    def factor(step: int) -> float:
        epoch, step_in_epoch = divmod(step, steps)
        order = streams.Streams(samples, config.run.seed, epoch, batch_size=size, span=span)
        begin, end = order.cuts[step_in_epoch : step_in_epoch + 2].tolist()
        return float(end - begin) / span

    return factor
