"""Plots of runs and of augmented images."""
