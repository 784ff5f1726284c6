"""docs/saved-json.md lists every field that is saved, and its examples run."""

from __future__ import annotations

import json
import re

import numpy as np
import synthetic_runs as made
from documents import page, run_example

from embedcore.images.load_dataset import load_dataset
from embedcore.plugin.machine import machine
from embedcore.results.process import TimingProcess
from embedcore.results.result import Result
from embedcore.results.saved import dataset_block, embedcore_block

PAGE = page("saved-json.md")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def names(text):
    return set(re.findall(r"`(\w+)`", text))


def rows(heading):
    """The table below a heading: its first column → the rest, as text."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| (`.*?`) \| (.*) \|$", section, re.MULTILINE))


def test_the_fields_of_a_model():
    table = rows("A model: `benchmarks[i]`")
    scores = {"acc": 0.5, "acc5": 0.5}
    measured = Result.make("net.tag", family="net", status="ok", scores=scores, detail="a note")
    assert names(" ".join(table)) == measured.extra_info().keys()
    assert names(table["`processes`"]) == set(TimingProcess.__struct_fields__)


def test_the_fields_of_a_run():
    table = rows("The run: `embedcore`")
    sets = [{}, {}]
    failed = Result.make("net.tag", family="net", status="error", reason="no", race={"classes": 2})
    block = embedcore_block(settings={}, datasets=sets, excluded=[failed])
    assert names(" ".join(table)) == {*block, "ranking"}
    assert block["excluded"][0].keys() <= names(re.sub(r"\[(`\w+`)\]\(\S+\)", r"\1", table["`excluded`"])) | {"dataset"}
    facts = PAGE.partition("`machine_info.embedcore` has")[2].partition("\n## ")[0]
    assert names(facts) == machine("cpu").keys()


def test_the_fields_of_a_dataset():
    images = np.zeros((8, 8, 8, 3), dtype=np.uint8)
    whole = load_dataset(images, [0, 0, 0, 0, 1, 1, 1, 1], roles=["query", "query", "reference", "reference"] * 2)
    assert names(rows("The run: `embedcore`")["`dataset`"]) == dataset_block(whole).keys()


def test_the_examples_run(tmp_path):
    classes = np.repeat(np.arange(10), 4)
    hits = made.hits_of("net.tag", classes, 0.5)
    found = made.result("net.tag", classes, hits, ci95={"acc": [0.1, 0.9]})
    (tmp_path / "run.json").write_text(json.dumps(made.saved([found], classes)))
    shown = run_example(EXAMPLES[0], tmp_path)
    assert shown.split()[:2] == ["net.tag", str(found["scores"]["acc"])]
    of_queries = run_example(f"{EXAMPLES[1]}print(classes.tolist(), verdicts.hits.tolist())", tmp_path)
    assert of_queries.strip() == f"{classes.tolist()} {hits.tolist()}"
