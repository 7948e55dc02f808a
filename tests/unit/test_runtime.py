"""What TensorFlow brings along."""

import subprocess
import sys

PROGRAM = """
import sys
from ba_dist import runtime
runtime.prepare(0, 1, 0)
print(sorted({"matplotlib", "sklearn", "keras"} & set(sys.modules)))
import matplotlib.pyplot, sklearn.base
"""


def test_a_rank_loads_no_plotting_but_may_later():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "['keras']\n"), done.stderr
