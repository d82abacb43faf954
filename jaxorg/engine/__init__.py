"""The engine: one run's step, cohorts of stacked runs, and the walk through a plan."""
