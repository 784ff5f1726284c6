"""Every row of docs/datasets.md is run, and the page shows these rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from dataset_kinds import Kind
from dataset_page import GROUPS, PAGE, with_tables

from embedcore.errors import UsageError
from embedcore.images.load_dataset import load_dataset


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.looks) for kinds in GROUPS.values() for kind in kinds])
def test_what_happens(kind: Kind, tmp_path: Path) -> None:
    arguments = kind.make(tmp_path)
    if kind.refused:
        with pytest.raises(UsageError) as caught:
            load_dataset(arguments.images, arguments.labels, **arguments.options)
        message = str(caught.value).replace(f"{tmp_path}/", "")
        head, *images = message.splitlines()
        assert kind.refused in message
        assert not images or (head.endswith(" cannot be read:") and len(images) == 1)
        return
    dataset = load_dataset(arguments.images, arguments.labels, **arguments.options)
    assert Counter(dataset.classes[label] for label in dataset.labels) == kind.classes
    assert (None if dataset.leave_one_out else int(dataset.is_query.sum())) == kind.queries
    assert kind.note in "; ".join(dataset.notes) if kind.note else dataset.notes == ()
    if kind.check is not None:
        kind.check(dataset)


def test_the_page_shows_these_rows() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "run: python scripts/make_dataset_table.py"
