"""What can be told from a run afterwards."""
