"""Comparisons of two runs or two sides, and their verdicts."""
