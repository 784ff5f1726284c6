"""Print where the time of a case goes, for ten models below 5 M parameters on 200 images.

    python benchmarks/harness/case_stages.py [--passes 2] [--alone] [--precision auto]

Each case runs as in a session, except for the second timing process. In the first pass the cache folder is empty. With
`--alone` no case starts its process while the case before is scored. `beside` is the time outside of the stages:
looking for weights, starting the process, sending results.
"""

from __future__ import annotations

import argparse
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    dataset = load_dataset("emoji", max_classes=CLASSES, max_per_class=1)
    with tempfile.TemporaryDirectory(prefix="embedcore-") as cache:
        settings = CaseSettings(weights="random", device="cpu", precision=arguments.precision, processes=2)
        bench = Bench(settings, cache=cache)
        for number in range(arguments.passes):
            print(f"\npass {number + 1}: {len(dataset)} images, seconds")
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


def table(rows: dict[str, dict[str, float]]) -> str:
    """Return a line for each model, and their sum."""
    lines = [[model, *(f"{spent.get(stage, 0):.2f}" for stage in STAGES)] for model, spent in rows.items()]
    sums = [sum(spent.get(stage, 0) for spent in rows.values()) for stage in STAGES]
    return tabulate.tabulate([*lines, ["sum", *(f"{value:.1f}" for value in sums)]], headers=["model", *STAGES])


if __name__ == "__main__":
    main()
