"""A project with the benchmark and a small image set, run by pytester in this process.

What is imported here stays imported: pytester forgets modules that a run inside it imports first, and torch cannot be
imported twice.
"""

from __future__ import annotations

import json
from pathlib import Path

import altair  # noqa: F401
import forked
import huggingface_hub
import jinja2  # noqa: F401
import numpy as np
import pytest
import quick_sessions  # noqa: F401
import vl_convert  # noqa: F401
from execnet import gateway_io
from PIL import Image

import embedcore.images.pixel_store
import embedcore.measure.executors
import embedcore.measure.forecast
import embedcore.plugin.machine
import embedcore.plugin.plugin
import embedcore.plugin.start
import embedcore.report.report_folder
import embedcore.zoo.roster  # noqa: F401

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "test_models.py"
MODELS = ("test_resnet.r160_in1k", "test_vit.r160_in1k", "test_efficientnet.r160_in1k")


@pytest.fixture
def project(pytester, monkeypatch):
    """A folder with test_models.py as users have it, images/ of three classes and roster.txt of three models."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # read from the environment at import
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(pytester.path / "hub"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(gateway_io, "create_io", forked.ForkedWorker)  # of workers of pytest-xdist
    pytester.makepyfile(test_models=BENCHMARK.read_text())
    rng = np.random.default_rng(0)
    for label, colour in enumerate([(220, 30, 30), (30, 220, 30), (30, 30, 220)]):
        for number in range(3):
            pixels = np.clip(rng.normal(colour, 40, (40, 50, 3)), 0, 255).astype(np.uint8)
            path = pytester.path / "images" / f"class{label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (pytester.path / "roster.txt").write_text("\n".join(MODELS))
    return pytester


@pytest.fixture
def run(project):
    """Run the benchmark in the project with random weights and further arguments."""

    def run(*arguments, weights="random", dataset="images", roster="roster.txt"):
        return project.runpytest_inprocess(
            "-p",
            "no:cacheprovider",
            f"--embed-dataset={dataset}",
            f"--embed-roster={roster}",
            f"--embed-weights={weights}",
            f"--embed-cache={project.path / 'cache'}",
            "--embed-rounds=2",
            "--embed-processes=1",
            *arguments,
        )

    return run


@pytest.fixture
def saved(project):
    """The JSON that a run with ``--benchmark-json=run.json`` has saved."""
    return lambda: json.loads((project.path / "run.json").read_text())


@pytest.fixture
def workers(project):
    """Start the benchmark with workers of pytest-xdist, in a process group of its own."""

    def start(count, *arguments, dataset="images", output="output"):
        return forked.start(
            forked.pytest_session,
            *("test_models.py", "-p", "no:cacheprovider", f"-n{count}", f"--embed-dataset={dataset}"),
            *("--embed-roster=roster.txt", "--embed-weights=random", f"--embed-cache={project.path / 'cache'}"),
            *("--embed-rounds=2", "--embed-processes=1", *arguments),
            folder=project.path,
            output=project.path / output,
        )

    return start


@pytest.fixture
def start_sweep(project):
    """Start the benchmark over a roster, in a process of its own."""

    def start(*arguments, roster, cache="cache"):
        (project.path / "roster.txt").write_text("\n".join(roster))
        return forked.start(
            forked.lean_session,
            *("test_models.py", "-p", "no:cacheprovider", "--embed-dataset=images"),
            *("--embed-roster=roster.txt", "--embed-weights=random", f"--embed-cache={project.path / cache}"),
            *("--embed-rounds=1", "--embed-processes=1", *arguments),
            folder=project.path,
            output=project.path / "output",
        )

    return start
