"""The version of embedcore; pyproject.toml reads it."""

VERSION = "0.2.0"
