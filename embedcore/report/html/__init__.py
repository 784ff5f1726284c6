"""Shared parts of all pages: templates, scripts, and parts of charts."""
