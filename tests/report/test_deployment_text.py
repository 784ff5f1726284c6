"""The table of `embedcore deploy` says whether the best model depends on the engine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from embedcore.compare.deployment import USUAL, Deployed, Way
from embedcore.report.deployment_text import as_text
from embedcore.results.result import Result

INT8 = Way("openvino", "int8")
CHANGES = "The best model changes: a.x on eager fp32, but b.x on openvino int8."


@pytest.mark.parametrize(
    ("accs", "words"),
    [
        ({"a.x": (0.5, 0.45), "b.x": (0.4, 0.42)}, "The best model is a.x on every engine."),
        (
            {"a.x": (0.5, 0.4), "b.x": (0.48, 0.47)},
            CHANGES,
        ),
        (
            {"a.x": (0.5, None), "b.x": (0.4, 0.4)},
            CHANGES,
        ),
        ({"a.x": (None, 0.5), "b.x": (None, 0.6)}, None),
        ({"a.x": (0.5, 0.4)}, None),
    ],
)
def test_whether_the_best_model_depends_on_the_engine(
    result_of: Callable[..., Result], accs: dict[str, tuple[float | None, float | None]], words: str | None
) -> None:
    def measured(model: str, acc: float | None) -> Result:
        return result_of(model, acc) if acc is not None else failed(model)

    def failed(model: str) -> Result:
        return Result.make(model, architecture="a", family="resnet", status="unsupported", reason="no such operation")

    rows = [
        Deployed(way, measured(model, acc), None)
        for model, pair in accs.items()
        for way, acc in zip((USUAL, INT8), pair, strict=True)
    ]
    text = " ".join(as_text(rows, 80).split())
    assert words in text if words else "The best model" not in text
    assert ("unsupported: no such operation" in text) == any(None in pair for pair in accs.values())
