"""Job scripts and their submission."""
