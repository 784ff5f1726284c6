"""Engines: the ways to run a backbone's forward pass."""
