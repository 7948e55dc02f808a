"""Read once, share: the batches of a group of ranks."""
