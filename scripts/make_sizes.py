"""Write embedcore/zoo/sizes.csv: parameters and multiply-accumulates of every architecture of the installed timm.

    nice -n 19 python scripts/make_sizes.py embedcore/zoo/sizes.csv

Models are built and run on the meta device, so this needs no weights, little memory and no fast machine. GMACs are half
the FLOPs that torch's FlopCounterMode counts for one image of the default tag's input size (convolutions and matrix
products, also of attention). A field is empty if an architecture cannot be built or counted within the time limit. Each
row is written immediately; a second call continues where the first was stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import logging
import math
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import timm
import torch
from timm.layers import set_fused_attn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

COLUMNS = ("architecture", "params_m", "gmacs")


class OutOfTimeError(Exception):
    """The time limit of one architecture has passed."""


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise OutOfTimeError(f"{seconds} s have passed")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def count_gmacs(module: torch.nn.Module, input_size: tuple[int, int, int], device: str) -> float:
    counter = FlopCounterMode(display=False)
    # Fused attention kernels lack a FLOP formula on some backends; the plain ones are matrix products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(torch.zeros(1, *input_size, device=device))
    return float(counter.get_total_flops()) / 2e9


def measure(architecture: str, seconds: int, largest_on_cpu_m: float) -> tuple[float | None, float | None]:
    """Return parameters in millions and GMACs of one architecture; None if they cannot be counted."""
    params = None
    try:
        with time_limit(seconds):
            for device in ("meta", "cpu"):
                if device == "cpu" and (params is None or params > largest_on_cpu_m):
                    break
                try:
                    with torch.device(device):
                        module = timm.create_model(architecture, pretrained=False).eval().requires_grad_(False)
                    params = sum(p.numel() for p in module.parameters()) / 1e6
                    gmacs = count_gmacs(module, module.pretrained_cfg["input_size"], device)
                except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:
                    # Some forward passes read values, which meta tensors lack: count these on the CPU.
                    log(f"{architecture}: {device}: {type(error).__name__}: {str(error)[:150]!r}")
                else:
                    return params, gmacs
    except OutOfTimeError as error:
        log(f"{architecture}: {error}")
    return params, None


def field(value: float | None) -> str:
    """Return five significant digits; empty for None or zero, which means that nothing was counted.

    >>> field(25.557032), field(None)
    ('25.557', '')
    """
    if not value:
        return ""
    return str(round(value, max(0, 4 - math.floor(math.log10(value)))))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=int, default=120, help="time limit of one architecture")
    parser.add_argument(
        "--largest-on-cpu", type=float, default=700, help="largest model to build on the CPU, in millions of parameters"
    )
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    set_fused_attn(False)

    out: Path = arguments.out
    architectures = timm.list_models(pretrained=False)
    done: dict[str, tuple[str, str]] = {}
    if out.exists():
        with out.open(newline="") as stream:
            done = {row["architecture"]: (row["params_m"], row["gmacs"]) for row in csv.DictReader(stream)}
    with out.open("a", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if not done:
            writer.writerow(COLUMNS)
        for architecture in architectures:
            if architecture in done:
                continue
            params, gmacs = measure(architecture, arguments.seconds, arguments.largest_on_cpu)
            done[architecture] = field(params), field(gmacs)
            writer.writerow((architecture, *done[architecture]))
            stream.flush()
    with out.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((architecture, *done[architecture]) for architecture in architectures)


if __name__ == "__main__":
    main()
