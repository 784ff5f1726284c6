"""Labelled images: sources and splits, geometry and the pixel store."""
