"""Tables without labels: their images can be embedded, and whatever needs labels says so."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest

from embedcore.errors import UsageError
from embedcore.images.load_dataset import as_dataset, load_dataset


@pytest.fixture
def root(make_folder) -> Path:
    return make_folder({"cat": 2, "dog": 2})


def test_names_and_images_of_all_rows_in_order(root: Path) -> None:
    names = ("dog/001.png", "cat/000.png", "dog/001.png")
    file = root / "shop.CSV"
    file.write_text("\n".join(["File,weight,split", *(f"{name},{row},train" for row, name in enumerate(names))]))
    by_list = as_dataset([root / name for name in names])
    for value in (file, str(file), f"csv:{file}", f"csv:{file}?path=File"):
        found = as_dataset(value)
        assert (found.names, found.name, found.classes) == (names, "shop", (".",))
        assert found.fingerprint == by_list.fingerprint
    assert as_dataset(pandas.DataFrame({"file": [root / names[0]]})).names == (str(root / names[0]),)


def test_labels_are_kept_where_there_are_some(root: Path) -> None:
    (root / "shop.csv").write_text("file,class\ncat/000.png,a\ncat/001.png,a\ndog/000.png,b\n")
    assert as_dataset(root / "shop.csv").classes == ("a", "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("pic\na.png\n", r"line 1: no column 'path'; the first line must name the column path, not 'pic'; or name"),
        ("path\n", "names no images: nothing follows its first line"),
        ("path,weight\n,3\n", "line 2: column 'path' is empty"),
        ("path\ngone.png\n", "none of the 1 images of .* exists"),
        ("path\ncat/000.png\ngone.png\n", r"1 of 2 images of .*shop.csv .* cannot be read:\n  'gone.png': No such"),
    ],
)
def test_faults_are_named(root: Path, content: str, message: str) -> None:
    (root / "shop.csv").write_text(content)
    with pytest.raises(UsageError, match=message):
        as_dataset(root / "shop.csv")
    with pytest.raises(UsageError, match="no such csv file"):
        as_dataset(f"csv:{root}/other.csv")


def test_labels_are_needed_for_scores(root: Path) -> None:
    (root / "shop.csv").write_text("path\ncat/000.png\n")
    with pytest.raises(UsageError, match=r"line 1: no column 'label'; .*or name yours: --embed-columns label=NAME"):
        load_dataset(f"csv:{root}/shop.csv")
    with pytest.raises(UsageError, match="shop has no classes: it can be embedded, but scores need labels"):
        as_dataset(root / "shop.csv").expect_classes()
