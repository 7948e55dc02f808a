"""What people's own scripts call; the public names are listed in `ba_dist/__init__.py`."""
