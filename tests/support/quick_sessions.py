"""Makes sessions of tests quick, where it does not matter what they would find out; to be imported."""

import pytest_benchmark.plugin

from embedcore.embed import timing

# How long a warm-up goes on is the subject of tests/embed/test_timing.py alone.
timing.MOST_WARMUPS, timing.LATENCY_S = 3, 0.0

# For each saved JSON pytest-benchmark would ask the processor in a new interpreter.
pytest_benchmark.plugin.get_cpu_info = lambda: {"brand_raw": "a processor"}
