"""Evaluate the time estimates of a finished run: ``python estimates.py JOURNAL`` (runs/*.jsonl).

Before each case after the first, the estimated range is recomputed from the results so far and compared with the actual
duration of the remaining measurements. Prints a line per case and a summary.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from tabulate import tabulate

from embedcore.plugin.cases import case_gmacs
from embedcore.results.estimate import estimate_range, measured_costs
from embedcore.results.record import read_record


def main(path: Path) -> None:
    results = [entry.result for entry in read_record([path]).entries if entry.result.ok and entry.result.measured_s]
    rows, jumps, before = [], [], None
    for place in range(1, len(results)):
        rest = results[place:]
        low, high = estimate_range(
            measured_costs(results[:place], case_gmacs), [case_gmacs(result.model) for result in rest]
        )
        took = sum(result.measured_s for result in rest)
        middle = (low * high) ** 0.5
        held = "held" if low <= took <= high else "above" if took > high else "below"
        rows.append((place, rest[0].model, f"{low:.0f} to {high:.0f}", f"{took:.0f}", f"{middle / took:.2f}", held))
        done = sum(result.measured_s for result in results[:place])
        if before is not None:  # estimates of the total, now and one case before
            jumps.append(max((done + middle) / before, before / (done + middle)))
        before = done + middle
    print(tabulate(rows, ("done", "next", "range, s", "took, s", "middle / took", ""), disable_numparse=True))
    share = statistics.mean(row[-1] == "held" for row in rows)
    print(f"\n{len(results)} cases; {share:.0%} of the ranges held; largest jump of the total {max(jumps):.2f}-fold")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
