"""Leaderboards: terminal, Markdown, CSV, JSON and the page."""
