"""Checks before a case is measured, and the result of a case that ended with an exception."""

from __future__ import annotations

import traceback
from typing import Any

from embedcore.embed.memory import is_out_of_memory
from embedcore.errors import EmbedcoreError, FactoryError, HubUnreachable, UsageError, WeightsDamaged, option
from embedcore.images.ledger import Ledger
from embedcore.measure.case import Case
from embedcore.results.result import Result
from embedcore.zoo.hub import Hub
from embedcore.zoo.registry import known_params_m, split_tag
from embedcore.zoo.weights import Located, locate_weights, weights_id


class NotFiniteError(EmbedcoreError):
    """Embeddings contain NaN, infinity or a zero vector."""

    status = "nan"


class TooLargeError(EmbedcoreError):
    """The model has more parameters than the setting max_params allows."""

    status = "too-large"


def locate(case: Case, hub: Hub) -> Located | None:
    """Return where the weights of a case are, without loading or downloading them; None for an own model.

    Raises TooLargeError for a model that is known to be too large, and what `locate_weights` raises.
    """
    own_model = case.own_model
    check_size(case.max_params, known_params_m(own_model.arch or "" if own_model else case.model))
    return None if own_model else locate_weights(case.model, case.weights, seed=case.seed, hub=hub)


def weights_changed(case: Case, result: Result, hub: Hub, ledger: Ledger) -> bool:
    """Whether a result belongs to other weights than the case would load now; False if these are not here.

    For an own model: whether its entry or file (a factory's source, not what that imports) has changed. Files that
    ``ledger`` knows are not read again.
    """
    if case.own_model is not None:
        return result.weights.get("entry") != case.own_model.state(case.own_model.content(ledger.sha256))
    if not result.ok or result.weights.get("source") == "random":
        return False
    try:
        located = locate_weights(case.model, case.weights, seed=case.seed, hub=hub)
        return located.path is not None and weights_id(ledger.sha256(located.path)) != result.weights.get("id")
    except (WeightsDamaged, OSError):
        return True  # the measurement will report the problem
    except EmbedcoreError:
        return False


def facts_of_case(case: Case) -> dict[str, Any]:
    """Return the fields that every result of a case has, measured or not."""
    own_model = case.own_model
    if own_model is None:
        return {"family": case.family}
    architecture = split_tag(own_model.arch)[0] if own_model.arch else own_model.name
    weights = {"source": own_model.source, "entry": own_model.state(own_model.content())}
    return {"family": case.family, "architecture": architecture, "tag": "", "weights": weights}


def check_size(max_params_m: float | None, params_m: float | None) -> None:
    """Raise TooLargeError if a model of ``params_m`` million parameters (None if unknown) is above the limit."""
    if max_params_m is not None and params_m is not None and params_m > max_params_m:
        raise TooLargeError(f"more than {max_params_m:g} million parameters ({option('max_params')})")


def failure(
    case: Case, error: BaseException, *, peak_memory_mb: float | None = None, measured_s: float = 0.0
) -> Result:
    """Return the result of a case that ended with an exception; the reason includes the peak memory if known."""
    peak = "" if peak_memory_mb is None else f"; peak memory {peak_memory_mb:.0f} MB"
    return Result.make(
        case.model,
        **facts_of_case(case),
        status=status_of(error),
        reason=f"{reason_of(error)}{peak}",
        detail=detail_of(error),
        unreachable=isinstance(error, HubUnreachable),
        lost_host=(error.host, error.why) if isinstance(error, HubUnreachable) and error.host else None,
        peak_memory_mb=peak_memory_mb,
        measured_s=measured_s,
    )


def status_of(error: BaseException) -> str:
    """Return the status of a measurement that raised ``error``; ``error`` for an unexpected exception."""
    if isinstance(error, EmbedcoreError):
        return error.status
    return "oom" if is_out_of_memory(error) else "error"


def reason_of(error: BaseException) -> str:
    """Return the error's message on one line; other errors than embedcore's own with the name of their class."""
    text = " ".join(str(error).split())
    if isinstance(error, EmbedcoreError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def detail_of(error: BaseException) -> str:
    """Return the traceback of an unexpected error or one of a user's code; "" for embedcore's own errors."""
    if isinstance(error, EmbedcoreError) and not isinstance(error, UsageError | FactoryError):
        return ""
    return "".join(traceback.format_exception(error))
