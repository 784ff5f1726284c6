"""What can be said of a case without loading anything: it is then not measured at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedcore.errors import EmbedcoreError, WeightsDamaged
from embedcore.measure.outcome import TooLargeError, failure
from embedcore.zoo.registry import known_params_m
from embedcore.zoo.weights import fetch_weights, locate_weights

if TYPE_CHECKING:
    from embedcore.measure.case import Case
    from embedcore.results.result import Result
    from embedcore.zoo.hub import Hub


def refusal(case: Case, hub: Hub) -> Result | None:
    """The result of a case that is known to be too large or to have no weights here, else None."""
    try:
        check_size(case.max_params, known_params_m(case.model))
        locate_weights(case.model, case.weights, seed=case.seed, hub=hub)
    except EmbedcoreError as error:
        return failure(case, error)
    return None


def weights_changed(case: Case, result: Result, hub: Hub) -> bool:
    """Whether a result belongs to other weights than the case would load now; False where those are not here, too."""
    if not result.ok or result.weights.get("source") == "random":
        return False
    try:
        located = locate_weights(case.model, case.weights, seed=case.seed, hub=hub)
        return located.path is not None and fetch_weights(located).id != result.weights.get("id")
    except WeightsDamaged:
        return True  # measuring says what is wrong
    except EmbedcoreError:
        return False


def check_size(max_params_m: float | None, params_m: float | None) -> None:
    """Raise TooLargeError if a model of ``params_m`` million parameters is larger than asked for; None is unknown."""
    if max_params_m is not None and params_m is not None and params_m > max_params_m:
        raise TooLargeError(f"more than {max_params_m:g} million parameters (--embed-max-params)")
