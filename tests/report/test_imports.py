from __future__ import annotations

import subprocess
import sys

# Reading saved runs (in a CI job, on the command line) must not import torch or need pytest.
PROGRAM = """
import sys
import embedcore.report.report_folder, embedcore.report.board.terminal
import embedcore.results.journal, embedcore.results.run, embedcore.results.verdicts
print(sorted({"torch", "timm", "pytest"} & set(sys.modules)))
"""


def test_results_and_report_import_neither_torch_nor_pytest() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
