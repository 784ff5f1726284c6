"""Helpers for tests of rosters."""

from __future__ import annotations

from typing import Any

from embedcore.zoo.roster import read_roster


def resolve_roster(spec: str, **narrowed: Any) -> list[str]:
    """The names of `read_roster`."""
    return list(read_roster(spec, **narrowed))
