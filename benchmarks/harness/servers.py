"""Measure how much of the difference between two equal sides comes from the servers of their processes.

    python benchmarks/harness/servers.py --folder FOLDER --core 0 test_resnet --starts 16

Both sides start STARTS times, each time with two pairs of processes from the same servers. If servers had no effect,
the ratio F of the variances between and within starts would be about 1; it has STARTS - 1 and STARTS degrees of
freedom.
Prints the standard deviations of the log ratio, F, and its p-value.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from error_rates import Measure, sides_of
from scipy import stats

from embedcore.ab.schedule import Track, _measure_alone
from embedcore.compare.interleaved import paired_ratio


def main() -> None:
    """Measure two pairs of processes for each start of both sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--starts", type=int, default=16)
    parser.add_argument("--core", type=int, help="use only this core, with one thread")
    parsed = parser.parse_args()
    folder = parsed.folder.absolute()
    if parsed.core is not None:
        os.sched_setaffinity(0, {parsed.core})
        os.environ["OMP_NUM_THREADS"] = "1"
    ratios = np.empty((parsed.starts, 2))
    for start in range(parsed.starts):
        with sides_of(folder, [parsed.architecture], slower=False) as sides:
            model = sides["A"].opened()["models"][0]
            measure, track = Measure(sides), Track(model)
            _measure_alone(track, measure)
            for pair in range(2):
                results = measure.interleaved(model, 0, track.equal)  # pairs of one number share servers
                ratios[start, pair], _ = paired_ratio(*(results[side].durations for side in "AB"))
        print(f"start {start}: {ratios[start, 0]:+.4f} {ratios[start, 1]:+.4f}", flush=True)
    within, between = ratios.var(axis=1, ddof=1).mean(), 2 * ratios.mean(axis=1).var(ddof=1)
    p = stats.f.sf(between / within, parsed.starts - 1, parsed.starts)
    apart = max(0.0, (between - within) / 2) ** 0.5
    print(f"{model}: within {within**0.5:.2%}, between {apart:.2%}, F {between / within:.1f} (p {p:.2g})")


if __name__ == "__main__":
    main()
