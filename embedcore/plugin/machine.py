"""Facts about machine and libraries, for ``machine_info`` and the identity of a run."""

from __future__ import annotations

import functools
import platform
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

from embedcore.forkserver import adopt_environment, child_environment, forkserver_context
from embedcore.images.workers import hidden_main
from embedcore.requirements import installed_requirements, shadowing

Machine = Mapping[str, Any]
"""Facts by name: a text or None, and the list ``requirements``."""


def machine(device: str, *, several: bool = False) -> Machine:
    """Return versions of timm, torch, cuda, cudnn, driver and python, the processor and the card; None if absent.

    ``requirements`` are the exact requirements of all installed distributions, from which `embedcore compare --confirm`
    builds the environment again.

    ``device``: the option's value; ``several``: pytest-xdist workers use all cards. CUDA is not initialised in this
    process.
    """
    import timm
    import torch

    from embedcore.embed.device import device_name

    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None
    cards = card_names() if device == "auto" or device.startswith("cuda") else ()
    if device.startswith("cuda:"):
        cards = cards[int(device.removeprefix("cuda:")) :][:1]
    elif not several:
        cards = cards[:1]
    return {
        "timm": timm.__version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": None if cudnn is None else str(cudnn),
        "driver": _driver(),
        "gpu": " + ".join(dict.fromkeys(cards)) or None,
        "processor": device_name(torch.device("cpu")),
        "python": platform.python_version(),
        "requirements": installed_requirements(),
    }


def machine_in_use(facts: Machine) -> str | None:
    """Return the device that the models run on: the card, or the processor and its threads."""
    found: str | None = facts["gpu"] or facts["processor"]
    return found


@functools.cache  # needed for the identity of the run and for the saved JSON
def card_names() -> tuple[str, ...]:
    """Return the names of the CUDA cards in torch's order, which respects CUDA_VISIBLE_DEVICES.

    A child process asks for them, since that initialises CUDA.
    """
    import torch

    if not torch.cuda.is_available():
        return ()
    with hidden_main(), forkserver_context().Pool(1, adopt_environment, (child_environment(),)) as pool:
        return pool.apply(_card_names)


def _card_names() -> tuple[str, ...]:
    import torch

    return tuple(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))


def device_of_worker(device: str, slot: int) -> str:
    """Return the device of the pytest-xdist worker in that slot: a card of its own while there are enough.

    ``auto`` and ``cuda`` are spread over the cards; another device is for all workers.
    """
    cards = len(card_names()) if device in ("auto", "cuda") else 0
    return f"cuda:{slot % cards}" if cards else device


def shared_cards(device: str, workers: int) -> list[str]:
    """Return a note if several pytest-xdist workers share a card, else an empty list."""
    if workers < 2 or not (device == "auto" or device.startswith("cuda")):
        return []
    cards = min(len(card_names()), 1) if device.startswith("cuda:") else len(card_names())
    if not 0 < cards < workers:
        return []
    many = f"{cards} cards" if cards > 1 else "one card"
    return [f"{workers} workers share {many} and slow each other down, so speeds are not comparable: use -n {cards}"]


def code_of_children() -> Mapping[str, Mapping[str, Any]]:
    """Return version and file of timm and torch in a process that measures, and whether another installation is hidden
    by them.
    """
    with hidden_main(), forkserver_context().Pool(1, adopt_environment, (child_environment(),)) as pool:
        return pool.apply(_code)


def _code() -> Mapping[str, Mapping[str, Any]]:
    import timm
    import torch

    return {
        module.__name__: {
            "version": module.__version__,
            "file": module.__file__,
            "shadowed": shadowing(module.__name__) is not None,
        }
        for module in (timm, torch)
    }


@functools.cache
def _driver() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # a driver without a card reports an error
    return next(iter(done.stdout.split()), None)
