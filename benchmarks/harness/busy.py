"""Measure how other work on the processor slows the forward pass, and the cost of letting waiting threads sleep.

``python busy.py [MODEL...]`` times models with random weights in two processes alternately: in one, threads spin at
barriers (the OpenMP library's default), in the other they sleep (OMP_WAIT_POLICY=passive). Each model runs alone,
then beside a busy loop. Prints a Markdown table: images per second (median of all rounds), the interquartile range
of the rounds over their median, the `contention`, and the ratio of passive to spinning. Run it on an idle machine; the
last line shows how busy the processor was before.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
from tabulate import tabulate

MODELS = ("mobilenetv2_100", "tf_efficientnet_lite0", "resnet50", "vit_tiny_patch16_224", "convnext_atto")
POLICIES = {"spinning": {}, "passive": {"OMP_WAIT_POLICY": "passive"}}
_OF_OPENMP = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
LOOP = "while True: pass"


def serve(batch_size: int) -> None:
    """Answer each line ``[model, rounds]`` with the durations of the forward passes and their contention."""
    import torch

    from embedcore.embed.device import place
    from embedcore.embed.timing import time_forward
    from embedcore.zoo.backbone import load_backbone

    loaded: dict = {}
    for line in sys.stdin:
        model, rounds = json.loads(line)
        if model not in loaded:
            loaded = {model: load_backbone(model, weights="random")}
            place(loaded[model].module, torch.device("cpu"))
        backbone = loaded[model]
        images = torch.rand(batch_size, *backbone.data_config.input_size).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            timed = time_forward(backbone.embed, images, rounds)
        print(json.dumps([timed.durations, timed.contention]), flush=True)


class Server:
    """A process that times models under one policy."""

    def __init__(self, settings: dict[str, str], batch_size: int) -> None:
        from embedcore.forkserver import tunables_with

        environment = {name: value for name, value in os.environ.items() if name not in _OF_OPENMP} | settings
        environment["GLIBC_TUNABLES"] = tunables_with(environment.get("GLIBC_TUNABLES"))
        command = [sys.executable, __file__, "--serve", "--batch-size", str(batch_size)]
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def times(self, model: str, rounds: int) -> tuple[list[float], float | None]:
        self.process.stdin.write(json.dumps([model, rounds]) + "\n")
        self.process.stdin.flush()
        durations, contention = json.loads(self.process.stdout.readline())
        return durations, contention


@contextlib.contextmanager
def busy_loops(count: int):
    """Run single-threaded busy processes in the block."""
    loops = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(count)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measured(servers: dict[str, Server], model: str, arguments: argparse.Namespace, loops: int) -> dict:
    """Return durations and contention of each policy, measured alternately."""
    found: dict = {name: ([], []) for name in servers}
    for server in servers.values():
        server.times(model, 2)
    with busy_loops(loops):
        for turn in range(arguments.turns):
            for name in list(servers)[:: 1 if turn % 2 == 0 else -1]:
                durations, contention = servers[name].times(model, arguments.rounds)
                found[name][0].append(durations)
                found[name][1].append(contention)
    return found


def row(model: str, beside: str, found: dict, batch_size: int) -> list[str]:
    cells = [model, beside]
    for turns, contention in found.values():
        rounds = [seconds for turn in turns for seconds in turn]
        low, median, high = statistics.quantiles(rounds, n=4)
        known = [value for value in contention if value is not None]
        crowded = f"{min(known):.3f} to {max(known):.3f}" if known else "unknown"
        cells += [f"{batch_size / median:.1f} (IQR {(high - low) / median:.0%})", crowded]
    spinning, *others = ([statistics.median(turn) for turn in turns] for turns, _ in found.values())
    ratios = [statistics.median(a / b for a, b in zip(spinning, other, strict=True)) for other in others]
    return [*cells, *(f"{ratio:.3f}" for ratio in ratios)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3, help="forward passes per turn")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--loops", type=int, default=1, help="number of busy loops")
    parser.add_argument("--policy", action="append", default=[], help="a further policy, such as GOMP_SPINCOUNT=10000")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.batch_size)
        return
    used = psutil.cpu_percent(interval=2.0)
    policies = POLICIES | {policy: dict([policy.split("=", 1)]) for policy in arguments.policy}
    servers = {name: Server(settings, arguments.batch_size) for name, settings in policies.items()}
    rows = []
    for model in arguments.models:
        for loops, beside in ((0, "nothing"), (arguments.loops, f"{arguments.loops} busy loop")):
            rows.append(row(model, beside, measured(servers, model, arguments, loops), arguments.batch_size))
            print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    for server in servers.values():
        server.process.stdin.close()
        server.process.wait()
    headers = ["model", "beside", *(text for name in policies for text in (f"{name}, images/s", "crowded"))]
    headers += [f"{name} / spinning" for name in list(policies)[1:]]
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    print(f"\n{os.cpu_count()} cores; {used:.0f}% of the processor was in use before; batch {arguments.batch_size}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
