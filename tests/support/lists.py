"""Two runs, and many, with known changes, for the pages of a comparison and of a history."""

from __future__ import annotations

import browsing
import numpy as np
import synthetic_runs as made

from embedcore.compare.history import History, history
from embedcore.compare.limits import DEFAULT, Limits, parse_limits
from embedcore.results.run import Run

CLASSES = np.repeat(np.arange(30), 6)
FAMILIES = ("resnet", "vit", "convnext")
NAMES = [f"{family}_{number}.{tag}_in1k" for family in FAMILIES for number in range(3) for tag in "ab"]
GONE, WORSE, SLOWER = NAMES[0], NAMES[8], NAMES[13]


def run_of(
    *, timm: str = "1.0.20", changed: bool = False, day: int = 1, hostile: bool = False, processor: str | None = None
) -> Run:
    """A run of `NAMES`; `changed`: without `GONE`, with `WORSE` worse and `SLOWER` slower."""
    infos = []
    names = [*browsing.HOSTILE, *NAMES] if hostile else NAMES
    for place, name in enumerate(names):
        if changed and name == GONE:
            continue
        hits = made.hits_of(name, CLASSES, 0.6)
        bad = changed and (name == WORSE or name in browsing.HOSTILE)
        if bad:
            hits = np.where(np.random.default_rng(place).random(len(hits)) < 0.5, 0, hits).astype(np.uint8)
        speed = 100.0 * (place + 1) * (0.7 if changed and name == SLOWER else 1.0)
        noise = 1 + 0.002 * np.random.default_rng([day, place]).standard_normal(10)
        info = made.result(
            name,
            CLASSES,
            hits,
            family=name if name in browsing.HOSTILE else name.split("_")[0],
            images_per_s={"forward": speed},
            durations=[float(s) for s in 16 / speed * noise],
        )
        if bad:
            info["transform"] |= {"interpolation": "bilinear"}
        infos.append(info)
    machine = {**made.MACHINE, "timm": timm, **({"processor": processor} if processor else {})}
    name = browsing.HOSTILE[1].replace("/", "_") if hostile else f"000{day}_nightly"
    return made.as_run(made.saved(infos, CLASSES, machine=machine) | {"datetime": f"2026-11-{day:02d}T12:00:00"}, name)


def two_runs(*, hostile: bool = False, processor: str | None = None) -> tuple[Run, Run]:
    return run_of(hostile=hostile), run_of(timm="1.0.31", changed=True, day=2, hostile=hostile, processor=processor)


def some_history(*, hostile: bool = False) -> History:
    """Six runs; the fourth is the first with a change."""
    runs = (
        run_of(timm="1.0.31" if day > 3 else "1.0.20", changed=day > 3, day=day, hostile=hostile) for day in range(1, 7)
    )
    return history(runs, Limits(parse_limits(DEFAULT)))
