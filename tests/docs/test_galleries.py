"""The example of docs/galleries.md runs."""

from __future__ import annotations

import re

import numpy as np
from documents import page, run_example


def test_the_example_in_python_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", page("galleries.md"), flags=re.DOTALL)
    (tmp_path / "shards").mkdir()
    rows = np.random.default_rng(1).standard_normal((60, 256)).astype(np.float32)
    for number, part in enumerate(np.array_split(rows, 3)):
        np.save(tmp_path / "shards" / f"{number}.npy", part)
    assert run_example(f"{example}\nprint(neighbours)", tmp_path).strip().endswith("the nearest 5 references of each")
