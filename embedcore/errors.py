"""The errors that embedcore raises on purpose; the message of each is one clear line for the user."""

from __future__ import annotations

import numbers
from typing import Any


class EmbedcoreError(Exception):
    """Base of all errors that embedcore raises on purpose; ``status`` is that of a case which ends with one of them."""

    status = "error"


class UsageError(EmbedcoreError):
    """The user asked for something that cannot be: a missing folder, an unknown family, a bad option value.

    The plugin turns it into pytest's usage error (exit code 4).
    """


class WeightsUnavailable(EmbedcoreError):
    """No weights for this model can be had here and now."""

    status = "no-weights"


class HubUnreachable(WeightsUnavailable):
    """The weights are on a hub that cannot be reached now, or refuses the token: a later try may get them.

    host: the host that was lost while it was asked, and why; "" if none was.
    """

    def __init__(self, message: str, host: str = "", why: str = "") -> None:
        super().__init__(message)
        self.host = host
        self.why = why


class WeightsGated(EmbedcoreError):
    """The weights exist but their licence has not been accepted with this account."""

    status = "gated"


class WeightsDamaged(EmbedcoreError):
    """A weight file is there but is wrong: damaged, of another model, or not plain tensors."""


class FactoryError(EmbedcoreError):
    """Code of the user, which is to give a model, cannot be imported or raises; the cause has its traceback."""


class UnsupportedModel(EmbedcoreError):
    """The model cannot give what was asked, such as a point that it does not have."""

    status = "unsupported"


def whole_number(value: Any, name: str, least: int) -> int:
    """Return a whole number of at least ``least``. Raises UsageError for anything else."""
    if not isinstance(value, numbers.Integral) or value < least:
        raise UsageError(f"{name} is {value!r}: a whole number of at least {least} is needed")
    return int(value)
