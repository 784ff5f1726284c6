"""For notebooks: benchmark many models in one call, runs that show themselves, ranks and comparisons as tables."""
