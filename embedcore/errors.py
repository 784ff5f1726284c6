"""The errors that embedcore raises on purpose; each message is one line for the user."""

from __future__ import annotations

import numbers
from typing import Any


class EmbedcoreError(Exception):
    """Base of all errors that embedcore raises on purpose; ``status``: of a case that ends with it."""

    status = "error"


class UsageError(EmbedcoreError):
    """The user's request is invalid: a missing folder, an unknown family, a bad option value.

    The plugin turns it into pytest's usage error (exit code 4).
    """


class WeightsUnavailable(EmbedcoreError):
    """The weights of this model are not available."""

    status = "no-weights"


class HubUnreachable(WeightsUnavailable):
    """The weights are on a hub that cannot be reached now, or refuses the token: a later try may get them.

    host, why: the host that became unreachable during the request, and the reason; "" if none.
    """

    def __init__(self, message: str, host: str = "", why: str = "") -> None:
        super().__init__(message)
        self.host = host
        self.why = why


class WeightsGated(EmbedcoreError):
    """The weights exist but their licence has not been accepted with this account."""

    status = "gated"


class WeightsDamaged(EmbedcoreError):
    """A weight file exists but is unusable: damaged, of another model, or not plain tensors."""


class FactoryError(EmbedcoreError):
    """A user's factory cannot be imported or raises; ``__cause__`` has the traceback."""


class UnsupportedModel(EmbedcoreError):
    """The model does not support the request, such as an embedding point that it lacks."""

    status = "unsupported"


def option(name: str, value: object = None, *, argument: str = "") -> str:
    """Return how a setting is given to pytest and in Python, for messages that both show.

    `argument`: its name in Python, if that differs.

    >>> option("max_params"), option("split", "loo"), option("resume", True)
    ('--embed-max-params / max_params', "--embed-split loo / split='loo'", '--embed-resume / resume=True')
    """
    flag, argument = f"--embed-{name.replace('_', '-')}", argument or name
    if value is None:
        return f"{flag} / {argument}"
    return f"{flag}{'' if value is True else f' {value}'} / {argument}={value!r}"


def whole_number(value: Any, name: str, least: int) -> int:
    """Return a whole number of at least ``least``. Raises UsageError for anything else."""
    if not isinstance(value, numbers.Integral) or value < least:
        raise UsageError(f"{name} is {value!r}: it must be a whole number of at least {least}")
    return int(value)
