from __future__ import annotations

import forked
import pytest

from embedcore.ab import sides


@pytest.fixture
def forked_sides(monkeypatch):
    """Fork the sides without packages of their own from a process that has imported torch and timm."""
    monkeypatch.setattr(sides, "subprocess", forked.FORKED_SIDES)
