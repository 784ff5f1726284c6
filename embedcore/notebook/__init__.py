"""For notebooks: measure many models in one call; runs shown as leaderboards; ranks and comparisons as DataFrames."""
