"""The result of a case that is not measured, or not to its end: from an exception to a status and a reason."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from embedcore.embed.memory import is_out_of_memory
from embedcore.errors import EmbedcoreError, FactoryError, HubUnreachable, UsageError, WeightsDamaged
from embedcore.results.result import Result
from embedcore.zoo.registry import known_params_m, split_tag
from embedcore.zoo.weights import locate_weights, weights_id

if TYPE_CHECKING:
    from embedcore.images.ledger import Ledger
    from embedcore.measure.case import Case
    from embedcore.zoo.hub import Hub


class NotFiniteError(EmbedcoreError):
    """Embeddings hold NaN or infinity, or one of them is zero."""

    status = "nan"


class TooLargeError(EmbedcoreError):
    """The model has more parameters than were asked for."""

    status = "too-large"


def refusal(case: Case, hub: Hub) -> Result | None:
    """The result of a case that is known to be too large or to have no weights here, else None."""
    own = case.own
    try:
        check_size(case.max_params, known_params_m(own.arch or "" if own else case.model))
        if own is None:
            locate_weights(case.model, case.weights, seed=case.seed, hub=hub)
    except EmbedcoreError as error:
        return failure(case, error)
    return None


def weights_changed(case: Case, result: Result, hub: Hub, ledger: Ledger) -> bool:
    """Whether a result belongs to other weights than the case would load now; False where those are not here, too.

    Of an own model whether its entry or its file (of a factory the source, without what that imports) is another one.
    Files that ``ledger`` knows are not read again.
    """
    if case.own is not None:
        return result.weights.get("entry") != case.own.state(case.own.content(ledger.sha256))
    if not result.ok or result.weights.get("source") == "random":
        return False
    try:
        located = locate_weights(case.model, case.weights, seed=case.seed, hub=hub)
        return located.path is not None and weights_id(ledger.sha256(located.path)) != result.weights.get("id")
    except (WeightsDamaged, OSError):
        return True  # measuring says what is wrong
    except EmbedcoreError:
        return False


def facts_of_case(case: Case) -> dict[str, Any]:
    """What every result of a case says, measured or not."""
    own = case.own
    if own is None:
        return {"family": case.family}
    architecture = split_tag(own.arch)[0] if own.arch else own.name
    weights = {"source": own.source, "entry": own.state(own.content())}
    return {"family": case.family, "architecture": architecture, "tag": "", "weights": weights}


def check_size(max_params_m: float | None, params_m: float | None) -> None:
    """Raise TooLargeError if a model of ``params_m`` million parameters is larger than asked for; None is unknown."""
    if max_params_m is not None and params_m is not None and params_m > max_params_m:
        raise TooLargeError(f"more than {max_params_m:g} million parameters (--embed-max-params)")


def failure(
    case: Case, error: BaseException, *, peak_memory_mb: float | None = None, measured_s: float = 0.0
) -> Result:
    """The result of a case that an exception has ended; peak memory, where it is known, stands in the reason too."""
    peak = "" if peak_memory_mb is None else f"; peak memory {peak_memory_mb:.0f} MB"
    return Result.make(
        case.model,
        **facts_of_case(case),
        status=status_of(error),
        reason=f"{reason_of(error)}{peak}",
        detail=detail_of(error),
        unreachable=isinstance(error, HubUnreachable),
        peak_memory_mb=peak_memory_mb,
        measured_s=measured_s,
    )


def status_of(error: BaseException) -> str:
    """The status that an exception of a measurement stands for; ``error`` for one that nobody planned."""
    if isinstance(error, EmbedcoreError):
        return error.status
    return "oom" if is_out_of_memory(error) else "error"


def reason_of(error: BaseException) -> str:
    """One line for people: embedcore's own messages as they are, others with the name of their exception."""
    text = " ".join(str(error).split())
    if isinstance(error, EmbedcoreError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def detail_of(error: BaseException) -> str:
    """The traceback, for a failure that nobody planned or of a user's code; "" for embedcore's own one-line errors."""
    if isinstance(error, EmbedcoreError) and not isinstance(error, UsageError | FactoryError):
        return ""
    return "".join(traceback.format_exception(error))
