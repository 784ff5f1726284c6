"""Print where the time of a case goes, for ten models below 5 M parameters on 200 images.

    python benchmarks/harness/case_stages.py [--passes 2] [--alone] [--parts] [--precision auto] [--device cpu]

Each case runs as in a session, except for the second timing process. In the first pass the cache folder is empty. With
`--alone` no case starts its process while the case before is scored. `beside` is the time outside of the stages:
looking for weights, starting the process, sending results.

With `--parts` the cases run in this process, under a profiler, and the table shows what the functions of a case take;
what a process costs besides is `beside` of the other table. A card computes asynchronously: there, a part that waits
for the card contains the time of those before it.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import time
from collections import Counter

import tabulate

from embedcore import Bench, CaseSettings, load_dataset

MODELS = (
    "mobilenetv2_100.ra_in1k",
    "mobilenetv3_small_100.lamb_in1k",
    "tf_efficientnet_lite0.in1k",
    "regnety_002.pycls_in1k",
    "edgenext_x_small.in1k",
    "mobilevit_xs.cvnets_in1k",
    "tinynet_e.in1k",
    "lcnet_050.ra2_in1k",
    "convnext_atto.d2_in1k",
    "pit_ti_224.in1k",
)
CLASSES = 100  # two images each
STAGES = ("beside", "loading", "timing", "embedding", "scoring", "total")
PARTS = {
    "weights found and hashed": ("bench.py", "_located"),
    "pixels opened or decoded": ("bench.py", "_pixels"),
    "model made, weights loaded": ("backbone.py", "load_backbone"),
    "GMACs": ("trials.py", "_gmacs"),
    "precision and layout": ("embedder.py", "choose_settings"),
    "reference kernel": ("reference.py", "__call__"),
    "warm-up": ("timing.py", "warm_up"),
    "rounds, both timings": ("timing.py", "time_forward"),
    "embedding": ("embedder.py", "embed_pixels"),
    "search": ("metrics.py", "_from_embeddings"),
    "resampling": ("resampling.py", "summary"),
    "whole case": ("bench.py", "run"),
}
"""File and name of the function that does each part."""
INSIDE = {"rounds, both timings": ("warm-up", "reference kernel")}
"""Parts that are called by another part, and are not counted in it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    dataset = load_dataset("emoji", max_classes=CLASSES, max_per_class=1)
    with tempfile.TemporaryDirectory(prefix="embedcore-") as cache:
        settings = CaseSettings(weights="random", device=arguments.device, precision=arguments.precision, processes=2)
        bench = Bench(settings, cache=cache, isolation="none" if arguments.parts else "process")
        for number in range(arguments.passes):
            print(f"\npass {number + 1}: {len(dataset)} images, seconds")
            if arguments.parts:
                print(parts_of(bench, dataset))
                continue
            spent = [stages_of(bench, dataset, place, arguments.alone) for place in range(len(MODELS))]
            print(table(dict(zip(MODELS, spent, strict=True))))
        bench.close()


def stages_of(bench: Bench, dataset: object, place: int, alone: bool) -> dict[str, float]:
    """Measure a model; return the seconds between the first message of each stage and the next."""
    spent: Counter[str] = Counter()
    begin = last = time.perf_counter()
    current = "beside"

    def stages(stage: str, done: int, total: int) -> None:
        nonlocal last, current
        now = time.perf_counter()
        spent[current] += now - last
        last, current = now, "beside" if stage == "decoding" else stage

    follows = {} if alone or place + 1 == len(MODELS) else {"following": bench.case(MODELS[place + 1])}
    measured = bench.run(bench.case(MODELS[place]), dataset, stages, **follows)
    if not measured.result.ok:
        raise SystemExit(f"{MODELS[place]}: {measured.result.reason}")
    end = time.perf_counter()
    spent[current] += end - last
    return {**spent, "total": end - begin}


def parts_of(bench: Bench, dataset: object) -> str:
    """Measure all models under a profiler; return a line for each part, with the seconds of all models."""
    profiler = cProfile.Profile()
    for place in range(len(MODELS)):
        profiler.runcall(stages_of, bench, dataset, place, alone=True)
    spent = dict.fromkeys(PARTS, 0.0)
    names = {function: part for part, function in PARTS.items()}
    for (file, _, function), (_, _, _, seconds, _) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        if part := names.get((file.rpartition("/")[2], function)):
            spent[part] += seconds
    for part, inner in INSIDE.items():
        spent[part] -= sum(spent[name] for name in inner)
    spent["rest"] = 2 * spent["whole case"] - sum(spent.values())
    return tabulate.tabulate([[part, f"{seconds:.2f}"] for part, seconds in spent.items()], headers=["part", "seconds"])


def table(rows: dict[str, dict[str, float]]) -> str:
    """Return a line for each model, and their sum."""
    lines = [[model, *(f"{spent.get(stage, 0):.2f}" for stage in STAGES)] for model, spent in rows.items()]
    sums = [sum(spent.get(stage, 0) for spent in rows.values()) for stage in STAGES]
    return tabulate.tabulate([*lines, ["sum", *(f"{value:.1f}" for value in sums)]], headers=["model", *STAGES])


if __name__ == "__main__":
    main()
