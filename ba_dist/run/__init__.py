"""What a run leaves behind: its directory, facts, checkpoints, metrics, trace."""
