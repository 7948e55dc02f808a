"""Ranks that share a GPU are told so by name."""

import os
import shutil
import subprocess
import sys

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


DRIVER = """
#include <string.h>
int cuInit(int flags) { return flags; }
int cuDeviceGet(int *device, int number) { *device = number + 40; return number > 7; }
int cuDeviceGetPCIBusId(char *address, int size, int device) {
    return strncpy(address, device == 43 ? "0000:17:00.0" : "0000:65:00.0", size) == 0;
}
int cuDeviceGetUuid_v2(unsigned char *identity, int device) {
    memset(identity, device, 16);
    return 0;
}
int hipDeviceGetPCIBusId(char *address, int size, int number) {
    strncpy(address, "0000:c1:00.0", size);
    return number > 7;
}
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """A library with the functions of both drivers that are asked, compiled here."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    for name in ("libcuda.so.1", "libamdhip64.so"):
        words = ["cc", "-shared", "-fPIC", "-o", folder / name, folder / "driver.c"]
        subprocess.run(words, check=True)
    return folder


@pytest.mark.parametrize("kind", ["cuda", "hip"])
def test_what_the_driver_says(kind, driver):
    """Asked in a process that finds the library, by number: three, one more, one that is not."""
    program = f"""
from ba_dist.health import devices
print([devices._by_{kind}(number) for number in (3, 4, 8)])
"""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    seen = {
        "cuda": [Device("0000:17:00.0", "2b" * 16), Device("0000:65:00.0", "2c" * 16), None],
        "hip": [Device("0000:c1:00.0", "0000:c1:00.0")] * 2 + [None],
    }
    assert done.stdout == f"{seen[kind]}\n", done.stderr


def test_the_device_of_this_machine():
    import tensorflow as tf

    gpus = tf.config.get_visible_devices("GPU")
    found = devices.mine()
    assert (found is not None) == bool(gpus)
