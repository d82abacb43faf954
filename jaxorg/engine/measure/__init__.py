"""Measuring of stacked phases, and the tables that hold what was measured."""
