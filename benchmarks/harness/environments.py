"""Measure whether other settings of memory and threads make the forward pass faster or its timing steadier.

    python benchmarks/harness/environments.py --processes 20 [--json FILE]

Fresh processes of all settings alternate, and each process times every model with random weights. The table shows the
ratio of images per second to those under embedcore's own settings (median over models of the median over processes,
with the lowest and highest model), and the scatter between processes (median over models of the robust standard
deviation of the logarithms). Run it on an idle machine. Settings whose library is not installed (Debian: libjemalloc2,
libmimalloc2.0) are left out.
"""

from __future__ import annotations

import argparse
import ctypes.util
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

from tabulate import tabulate

from embedcore.compare.statistics import robust_sd
from embedcore.forkserver import TUNABLES, settings_of_children

MODELS = (
    *("mobilenetv2_100", "tf_efficientnet_lite0", "resnet18", "resnet50"),
    *("vit_tiny_patch16_224", "vit_small_patch16_224", "convnext_atto", "mixer_s32_224"),
)
OURS = "embedcore's"


def settings() -> dict[str, dict[str, str]]:
    """Return environment variables by name of the setting."""
    ours = settings_of_children({})
    found = {
        OURS: ours,
        "glibc's own malloc": {name: value for name, value in ours.items() if name != "GLIBC_TUNABLES"},
        "huge pages (glibc.malloc.hugetlb=1)": ours | {"GLIBC_TUNABLES": f"{TUNABLES}:glibc.malloc.hugetlb=1"},
        "OMP_PROC_BIND=close": ours | {"OMP_PROC_BIND": "close"},
        "OMP_PROC_BIND=spread, OMP_PLACES=cores": ours | {"OMP_PROC_BIND": "spread", "OMP_PLACES": "cores"},
    }
    for library in ("jemalloc", "mimalloc"):
        path = ctypes.util.find_library(library)
        if path is not None:
            found[f"{library}, LD_PRELOAD"] = ours | {"LD_PRELOAD": path}
    return found


def serve(batch_size: int, rounds: int) -> None:
    """Print each model's median seconds of a forward pass as JSON."""
    import torch

    from embedcore.embed.device import place
    from embedcore.embed.timing import time_forward
    from embedcore.zoo.backbone import load_backbone

    found = {}
    for model in MODELS:
        backbone = load_backbone(model, weights="random")
        place(backbone.module, torch.device("cpu"))
        images = torch.rand(batch_size, *backbone.data_config.input_size).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            found[model] = statistics.median(time_forward(backbone.embed, images, rounds).durations)
    print(json.dumps(found))


def seconds_of(environment: dict[str, str], arguments: list[str]) -> dict[str, float]:
    """Return each model's seconds in a fresh process with these variables."""
    usual = {name: value for name, value in os.environ.items() if name not in ("GLIBC_TUNABLES", "GOMP_SPINCOUNT")}
    command = [sys.executable, __file__, "--serve", *arguments]
    done = subprocess.run(command, env=usual | environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def table(measured: dict[str, list[dict[str, float]]]) -> str:
    """Return the Markdown table of all settings against the first."""
    rows = []
    for name, processes in measured.items():
        ratios, scatter = [], []
        for model in MODELS:
            logs = [math.log(each[model]) for each in processes]
            base = [math.log(each[model]) for each in measured[OURS]]
            ratios.append(math.exp(statistics.median(base) - statistics.median(logs)))
            middle = statistics.median(logs)
            scatter.append(robust_sd([value - middle for value in logs]))
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append([name, spread, f"{statistics.median(scatter):.1%}"])
    headings = ["setting", "images/s, ratio", "scatter between processes"]
    return tabulate(rows, headings, tablefmt="github", disable_numparse=True)


def main() -> None:
    """Measure the settings in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=20, help="fresh processes for each setting")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where the seconds are kept; the same command continues")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.serve:
        serve(parsed.batch_size, parsed.rounds)
        return
    known = json.loads(parsed.json.read_text()) if parsed.json and parsed.json.is_file() else {}
    measured: dict[str, list[dict[str, float]]] = {name: known.get(name, []) for name in settings()}
    for number in range(parsed.processes):
        for name, environment in settings().items():
            if len(measured[name]) <= number:
                arguments = [f"--batch-size={parsed.batch_size}", f"--rounds={parsed.rounds}"]
                measured[name].append(seconds_of(environment, arguments))
                if parsed.json:
                    parsed.json.write_text(json.dumps(measured))
    print(table(measured))


if __name__ == "__main__":
    main()
