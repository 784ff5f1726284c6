"""Shortens test sessions when it is imported: brief warm-ups, and no look-up of the processor."""

import pytest_benchmark.plugin

from embedcore.embed import timing

# Only tests/embed/test_timing.py tests the length of a warm-up.
timing.MOST_WARMUPS, timing.LATENCY_S = 3, 0.0

# For each saved JSON pytest-benchmark would ask the processor in a new interpreter.
pytest_benchmark.plugin.get_cpu_info = lambda: {"brand_raw": "a processor"}
