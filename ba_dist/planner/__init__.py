"""What a run costs on a machine that is not here. Needs neither TensorFlow nor MPI."""

from ba_dist.planner.choice import Plan, plan
from ba_dist.planner.machine import Machine, read_machine
from ba_dist.planner.prediction import Prediction, Way, predict
from ba_dist.planner.workload import Workload, workload_of

__all__ = [
    "Machine",
    "Plan",
    "Prediction",
    "Way",
    "Workload",
    "plan",
    "predict",
    "read_machine",
    "workload_of",
]
