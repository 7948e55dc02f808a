"""Ranks that share a GPU are told so by name."""

import pytest

from ba_dist.health import devices
from ba_dist.health.devices import Device, compare

A, B = Device("0000:17:00.0", "a"), Device("0000:65:00.0", "b")
PART = Device("0000:17:00.0", "another part of a")
UNKNOWN = Device("", "")


@pytest.mark.parametrize(
    ("hosts", "seen"),
    [
        ("xx", [None, None]),
        ("x", [A]),
        ("x", [UNKNOWN]),
        ("xx", [A, B]),
        ("xx", [A, PART]),  # of a divided GPU
        ("xxyy", [A, B, A, B]),  # the same addresses on another node
        ("xyz", [A, A, A]),
        ("xy", [UNKNOWN, UNKNOWN]),
        ("xx", [A, UNKNOWN]),
        ("xx", [A, None]),
    ],
)
def test_each_rank_has_its_own(hosts, seen):
    assert compare(list(hosts), seen) == ("", "")


@pytest.mark.parametrize(
    ("hosts", "seen", "said"),
    [
        ("xx", [A, A], "ranks 0, 1 on x share one GPU, 0000:17:00.0. Start one rank a GPU"),
        ("xyxy", [A, A, B, A], "ranks 1, 3 on y share one GPU, 0000:17:00.0. "),
        ("xxyy", [A, A, B, B], "ranks 0, 1 on x share one GPU, 0000:17:00.0 (1 more such GPUs). "),
        ("x" * 12, [B] * 12, "ranks 0, 1, 2, 3, 4, 5, 6, 7 … on x share"),
        ("xxxx", [UNKNOWN, UNKNOWN, A, A], "ranks 2, 3 on x share"),
    ],
)
def test_ranks_that_share_one(hosts, seen, said):
    complaint, note = compare(list(hosts), seen)
    assert said in complaint and not note
    assert "--gpus-per-task=1" in complaint and "CUDA_VISIBLE_DEVICES" in complaint


def test_what_cannot_be_known_is_said():
    complaint, note = compare(["x", "y", "y"], [UNKNOWN, UNKNOWN, UNKNOWN])
    assert not complaint and note.startswith("ranks 1, 2 on y drive GPUs whose addresses cannot")


def test_a_number_that_no_device_has():
    """Also where there is a driver."""
    assert devices._by_cuda(10_000) is None and devices._by_hip(10_000) is None


def test_the_device_of_this_machine():
    import tensorflow as tf

    gpus = tf.config.get_visible_devices("GPU")
    found = devices.mine()
    assert (found is not None) == bool(gpus)
