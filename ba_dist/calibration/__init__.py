"""What the allocation at hand does, measured: the numbers of a machine file."""

from ba_dist.calibration.calibrate import Wishes, calibrate, check_model

__all__ = ["Wishes", "calibrate", "check_model"]
