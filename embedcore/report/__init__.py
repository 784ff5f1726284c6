"""Leaderboards for people: terminal, Markdown, CSV and JSON."""
