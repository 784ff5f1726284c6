"""Shows the ratios of the harness's own benchmarks at the end of the session."""

from __future__ import annotations

import pytest
from tabulate import tabulate

COMPARISONS = pytest.StashKey[list[dict]]()


@pytest.fixture(autouse=True)
def _comparison(request):
    """Keeps what a test has put into ``benchmark.extra_info`` for the summary."""
    yield
    benchmark = request.node.funcargs.get("benchmark")
    if benchmark is not None and "ours_s" in benchmark.extra_info:
        request.config.stash.setdefault(COMPARISONS, []).append({"name": request.node.name, **benchmark.extra_info})


def _ratio(row):
    if "ratio" in row:
        return f"{row['ratio']:.2f}" + (f" (target {row['target']})" if "target" in row else "")
    return f"{row['extra_s']:+.2f} s (target {row['target_extra_s']})" if "extra_s" in row else ""


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash.get(COMPARISONS, [])
    if not rows:
        return
    terminalreporter.section("embedcore: the harness's own speed (medians of runs in turn)")
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
