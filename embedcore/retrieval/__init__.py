"""Nearest neighbours, metrics and their intervals: pure functions on arrays, no I/O."""
