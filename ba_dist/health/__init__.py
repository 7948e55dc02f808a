"""What watches over a run: replicas, stalls, stragglers, bad gradients, requests to stop."""
