"""Measuring one case, in this process or in a child; independent of pytest."""
