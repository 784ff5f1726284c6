"""Import pandas, which only DataFrames need."""

from __future__ import annotations

import importlib
from typing import Any

from embedcore.errors import UsageError


def import_pandas() -> Any:
    """Return the module pandas. Raises UsageError if it is not installed."""
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        raise UsageError("a DataFrame needs pandas, which is not installed: pip install pandas") from error
