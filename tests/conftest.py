"""For all tests: a quiet TensorFlow, and properties that neither time out nor differ in CI."""

import os

from hypothesis import settings

from ba_dist.runtime import quiet

quiet()
settings.register_profile("busy", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("busy")
