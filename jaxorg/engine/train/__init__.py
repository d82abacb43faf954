"""Training of stacked phases."""
