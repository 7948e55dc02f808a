"""What can be measured of a run afterwards."""
