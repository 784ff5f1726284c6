"""Show the ratios of the harness's own benchmarks at the end of the session."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
from tabulate import tabulate

from embedcore.embed.device import choose_device, device_name, use_device
from embedcore.errors import UsageError
from embedcore.plugin.hooks import options_of

if TYPE_CHECKING:
    import torch

COMPARISONS = pytest.StashKey[list[dict]]()


@dataclass
class Proof:
    """The findings of a session on a device, as rows of a Markdown table."""

    device: torch.device
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, what: str, value: str, against: str, verdict: str) -> None:
        self.rows.append((what, value, against, verdict))

    def table(self) -> str:
        headers = ["what", "value", "against", "verdict"]
        return tabulate(self.rows, headers, tablefmt="github", disable_numparse=True)

    def title(self) -> str:
        import torch

        cuda = f"CUDA {torch.version.cuda}" if self.device.type == "cuda" else "no CUDA in use"
        return f"{device_name(self.device)} · torch {torch.__version__}, timm {version('timm')}, {cuda}"


PROOF = pytest.StashKey[Proof]()


@pytest.fixture(scope="session")
def proof(request):
    """The table for ``--embed-device``; torch is set up for that device."""
    if hasattr(request.config, "workerinput"):
        pytest.skip("run this without -n: a device must be measured by one process")
    return request.config.stash.setdefault(PROOF, Proof(use_device(options_of(request.config).device)))


def pytest_collection_finish(session):
    """Report a missing device in one line before the first test."""
    config = session.config
    if any("proof" in item.fixturenames for item in session.items) and not hasattr(config, "workerinput"):
        try:
            choose_device(options_of(config).device)
        except UsageError as error:
            raise pytest.UsageError(str(error)) from error


@pytest.fixture(autouse=True)
def _comparison(request):
    """Keep each test's ``benchmark.extra_info`` for the summary."""
    yield
    benchmark = request.node.funcargs.get("benchmark")
    if benchmark is not None and "ours_s" in benchmark.extra_info:
        request.config.stash.setdefault(COMPARISONS, []).append({"name": request.node.name, **benchmark.extra_info})


def _ratio(row):
    if "ratio" in row:
        return f"{row['ratio']:.2f}" + (f" (target {row['target']})" if "target" in row else "")
    return f"{row['extra_s']:+.2f} s (target {row['target_extra_s']})" if "extra_s" in row else ""


def pytest_terminal_summary(terminalreporter, config):
    proof = config.stash.get(PROOF, None)
    if proof is not None and proof.rows:
        terminalreporter.section("embedcore: checks of this device")
        for line in (proof.title(), "", *proof.table().splitlines()):
            terminalreporter.write_line(line)
    rows = config.stash.get(COMPARISONS, [])
    if not rows:
        return
    terminalreporter.section("embedcore: the harness's own speed (medians of alternating runs)")
    table = [
        [
            row["name"],
            row.get("peer", ""),
            f"{row['ours_s']:.3g}",
            f"{row['peer_s']:.3g}" if "peer_s" in row else "",
            _ratio(row),
        ]
        for row in rows
    ]
    terminalreporter.write_line(tabulate(table, ["benchmark", "peer", "ours, s", "peer, s", "peer / ours"]))
