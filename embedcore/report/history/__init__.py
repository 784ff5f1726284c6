"""Histories of saved runs."""
