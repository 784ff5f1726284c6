"""Two or more saved runs: what changed, whether it is real, and whether it may pass. Works from the JSON alone."""
