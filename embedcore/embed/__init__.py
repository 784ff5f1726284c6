"""Embeddings and timings of pixels and a backbone."""
