"""What the confirmation of suspect speeds answers, by simulation: real falls of known size, noise of known size.

    python benchmarks/harness/confirm_power.py [--draws 1000]

A draw is one suspect whose pairs of interleaved processes have normal log ratios. Prints a Markdown table with the
share of each answer under the default limit of 5 %.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from typing import Any

import numpy as np

from embedcore.ab.confirm import _answer
from embedcore.ab.schedule import measure_models
from embedcore.compare.interleaved import Interleaved
from embedcore.results.result import Result

LIMIT, ROUNDS = 0.05, 40
FALLS = (0.0, 0.02, 0.04, 0.045, 0.05, 0.055, 0.06, 0.08)
NOISES = (0.01, 0.02, 0.03, 0.04)


class Simulated:
    """Measures pairs of processes whose log ratio is normal; rounds within a process scatter by 1 %."""

    def __init__(self, fall: float, noise: float, rng: np.random.Generator) -> None:
        self._fall, self._noise, self._rng = fall, noise, rng

    def alone(self, side: str, model: str) -> Result:
        return self._result(1.0)

    def interleaved(self, model: str, number: int, equal: Any) -> dict[str, Result]:
        factor = math.exp(self._rng.normal(0, self._noise)) / (1 - self._fall)
        return {"A": self._result(1.0), "B": self._result(factor)}

    def _result(self, level: float) -> Result:
        seconds = level * np.exp(self._rng.normal(0, 0.01, ROUNDS))
        known: dict[str, Any] = {"status": "ok", "scores": {"acc": 0.5, "acc5": 0.5}, "batch_size": 1}
        return Result.make("net.x", family="other", durations=seconds.tolist(), precision="fp32", **known)


def answer(fall: float, noise: float, rng: np.random.Generator) -> str:
    (track,) = measure_models(["net.x"], Simulated(fall, noise, rng), lambda _: LIMIT, noise=noise)
    found = _answer(track, LIMIT)
    if not isinstance(found, Interleaved):
        return "undecided"
    return "slower" if found.alarms(LIMIT) else "clear"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    draws = parser.parse_args().draws
    rng = np.random.default_rng(0)
    print("| real fall | " + " | ".join(f"noise {noise:.0%}" for noise in NOISES) + " |")
    print("|---" * (len(NOISES) + 1) + "|")
    for fall in FALLS:
        cells = []
        for noise in NOISES:
            found = Counter(answer(fall, noise, rng) for _ in range(draws))
            cells.append(", ".join(f"{word} {found[word] / draws:.1%}" for word in ("slower", "clear", "undecided")))
        print(f"| {fall:.1%} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
