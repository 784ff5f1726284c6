"""Make labelled image sets of packages from npm and Debian, for the other scripts; prints a line for each set.

    python benchmarks/harness/image_sets.py FOLDER vendors tones icons clipart stamps

Writes FOLDER/NAME.csv, to be used as `csv:FOLDER/NAME.csv`; packages are kept in FOLDER. Needs `npm`, or `apt-get` and
`dpkg-deb`. Licences are those of the packages; the sets are not for distribution.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

Row = tuple[str, ...]
"""Path and class of an image, and its role if the set has two sides."""

FEWEST = 4  # images of a class
MOST = 40


def npm(folder: Path, package: str) -> Path:
    """Return the folder of an unpacked package of npm."""
    unpacked = folder / package
    if not unpacked.is_dir():
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = folder.glob(f"{package}-*.tgz")
        unpacked.mkdir()
        subprocess.run(["tar", "-xzf", archive, "-C", unpacked, "--strip-components=1"], check=True)
        archive.unlink()
    return unpacked


def debian(folder: Path, package: str) -> Path:
    """Return the folder of an unpacked package of Debian."""
    unpacked = folder / package
    if not unpacked.is_dir():
        subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = folder.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, unpacked], check=True)
        archive.unlink()
    return unpacked


def sides(references: list[dict[str, Path]], queries: dict[str, Path]) -> Iterator[Row]:
    """Yield the images of the names that all sides have; each name is a class."""
    for name in sorted(queries.keys() & set.intersection(*(set(side) for side in references))):
        yield from ((str(side[name]), name, "reference") for side in references)
        yield str(queries[name]), name, "query"


def by_folder(images: Path, skipped: Callable[[Path], bool]) -> Iterator[Row]:
    """Yield the images of folders that have enough of them; each folder is a class."""
    classes = defaultdict(list)
    for path in sorted(images.rglob("*.png")):
        if not path.is_symlink() and not skipped(path.relative_to(images)):
            classes[str(path.parent.relative_to(images))].append(path)
    for name, paths in classes.items():
        if len(paths) >= FEWEST:
            yield from ((str(path), name) for path in paths[:: -(-len(paths) // MOST)])


def emoji_of(folder: Path, vendor: str) -> dict[str, Path]:
    images = npm(folder, f"emoji-datasource-{vendor}") / "img" / vendor / "64"
    return {path.stem: path for path in images.glob("*.png")}


def vendors(folder: Path) -> Iterator[Row]:
    """Emoji of three vendors, without skin tones: the same symbols, drawn differently."""
    google, facebook, apple = (emoji_of(folder, vendor) for vendor in ("google", "facebook", "apple"))
    yield from sides([google, facebook], {name: path for name, path in apple.items() if "1f3f" not in name})


def tones(folder: Path) -> Iterator[Row]:
    """Emoji of four vendors, each skin tone another class."""
    yield from sides([emoji_of(folder, each) for each in ("google", "facebook", "twitter")], emoji_of(folder, "apple"))


def icons(folder: Path) -> Iterator[Row]:
    """Icons of two desktops: the same names, drawn differently."""

    def of(package: str, images: str) -> dict[str, Path]:
        found = (debian(folder, package) / "usr/share/icons" / images).rglob("*.png")
        return {path.stem: path for path in sorted(found) if not path.is_symlink()}

    yield from sides([of("oxygen-icon-theme", "oxygen/base/48x48")], of("mate-icon-theme", "mate/48x48"))


def clipart(folder: Path) -> Iterator[Row]:
    """Drawings, in a folder for each kind; icon themes and other series of near-copies are left out."""
    series = ("computer/icons", "shapes", "special", "signs_and_symbols", "recreation/games")
    images = debian(folder, "openclipart-png") / "usr/share/openclipart/png"
    yield from by_folder(images, lambda path: path.as_posix().startswith(series))


def stamps(folder: Path) -> Iterator[Row]:
    """Cut-out photos, in a folder for each kind; drawings and letters are left out."""
    images = debian(folder, "tuxpaint-stamps-default") / "usr/share/tuxpaint/stamps"
    yield from by_folder(images, lambda path: path.parts[0] == "symbols" or "cartoon" in path.as_posix())


SETS = {each.__name__: each for each in (vendors, tones, icons, clipart, stamps)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sets", nargs="+", choices=SETS)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.sets:
        rows = [*SETS[name](folder)]
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label", "role")[: len(rows[0])], *rows])
        print(f"{name}: {len(rows)} images of {len({row[1] for row in rows})} classes", flush=True)


if __name__ == "__main__":
    main()
