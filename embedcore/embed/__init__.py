"""Pixels and a backbone in, embeddings and timings out."""
