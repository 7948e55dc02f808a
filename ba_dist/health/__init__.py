"""What watches over a run: replicas, stalls, stragglers, non-finite gradients, requests to stop."""
