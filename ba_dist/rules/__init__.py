"""Who computes what, which sample when, at which rate: no TensorFlow, no MPI."""
