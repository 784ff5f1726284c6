"""What of the machine and the libraries a run depends on, for ``machine_info``."""

from __future__ import annotations

import functools
import platform
import shutil
import subprocess
from collections.abc import Mapping


def versions() -> Mapping[str, str]:
    """The versions on which numbers depend, for the identity of a run."""
    import timm
    import torch

    from embedcore.version import VERSION

    return {"embedcore": VERSION, "timm": timm.__version__, "torch": torch.__version__}


def machine() -> Mapping[str, str | None]:
    """Versions of timm, torch, cuda, cudnn and the driver, the GPUs' names and python; None for what is not there.

    CUDA is never initialised here: the pytest process must stay free of it. Driver and GPU are what nvidia-smi says.
    """
    import timm
    import torch

    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None
    gpu, driver = _nvidia_smi()
    return {
        "timm": timm.__version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": None if cudnn is None else str(cudnn),
        "driver": driver,
        "gpu": gpu,
        "python": platform.python_version(),
    }


@functools.cache  # asked for the identity of the run, and again for what is saved
def _nvidia_smi() -> tuple[str | None, str | None]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None, None
    command = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None, None  # a driver without a card answers with an error: there is no GPU then
    rows = [line.split(", ") for line in done.stdout.splitlines() if ", " in line]
    if not rows:
        return None, None
    return " + ".join(row[0] for row in rows), rows[0][-1]
