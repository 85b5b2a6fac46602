"""A grid of runs from one file."""
