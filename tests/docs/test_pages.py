"""README.md and docs/ agree with the code: links, options, commands and ini keys."""

from __future__ import annotations

import argparse
import re
import shlex
from urllib.parse import urlsplit

import pytest
from documents import ROOT

from embedcore.cli import make_parser
from embedcore.plugin.options import OPTIONS

PAGES = {path.relative_to(ROOT).as_posix(): path for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}


def anchors(text):
    """GitHub's anchors of the headings."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_and_headings(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        link = urlsplit(target)
        if link.scheme:
            continue
        path = PAGES[name] if not link.path else (PAGES[name].parent / link.path)
        assert path.exists(), target
        if link.fragment:
            assert link.fragment in anchors(path.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("name", PAGES)
def test_options_exist(name):
    named = set(re.findall(r"--embed-([a-z-]*[a-z])", TEXTS[name]))
    assert named <= {option.name for option in OPTIONS}


def test_the_table_of_options_is_complete():
    assert set(re.findall(r"`--embed-([a-z-]+)", TEXTS["docs/options.md"])) == {option.name for option in OPTIONS}


def commands(text):
    """Lines of code blocks that run `embedcore`, without comments."""
    blocks = re.findall(r"```(?:bash)?\n(.*?)```", text, re.DOTALL) + re.findall(r"^    (.*)$", text, re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip().startswith("embedcore ")]


@pytest.mark.parametrize("name", [name for name in PAGES if name not in ("docs/ci.md", "docs/cluster.md")])
def test_every_benchmark_names_its_models(name):
    """All of timm's models are 1 TB. (docs/ci.md has the settings of `init`, docs/cluster.md runs them all.)"""
    blocks = re.findall(r"```(?:bash)?\n(.*?)```", TEXTS[name], re.DOTALL)
    blocks += re.findall(r"^    (.*)$", TEXTS[name], re.MULTILINE)
    lines = [line for line in "\n".join(blocks).splitlines() if re.search(r"pytest benchmarks(?!/)", line)]
    outside = [line for line in lines if "embedcore init" not in line]
    assert all(re.search(r"--embed-roster|--embed-family|-k ", line) for line in outside), outside


def strings_of(parser):
    """Every option string of a parser, with those of its commands."""
    own = {string for action in parser._actions for string in action.option_strings}
    nested = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return own.union(*(strings_of(inner) for choices in nested for inner in choices.values()))


@pytest.mark.parametrize("name", [name for name in PAGES if commands(TEXTS[name])])
def test_commands_and_their_options_exist(name):
    (subparsers,) = [a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    for line in commands(TEXTS[name]):
        ours, _, _ = line.partition(" -- ")
        command, *words = shlex.split(ours, comments=True)[1:]
        assert command in subparsers.choices, line
        given = {word.partition("=")[0] for word in words if word.startswith("--") and not word.startswith("--embed-")}
        assert given <= strings_of(subparsers.choices[command]), line


def test_every_page_is_linked_from_the_readme_and_the_site():
    pages = {name.removeprefix("docs/") for name in PAGES if name.startswith("docs/")} - {"index.md", "api.md"}
    assert pages <= set(re.findall(r"\]\(docs/([\w-]+\.md)", TEXTS["README.md"]))
    assert pages <= {f"{name}.md" for name in re.findall(r"^([\w-]+)$", TEXTS["docs/index.md"], re.MULTILINE)}
