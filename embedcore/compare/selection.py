"""Whether the selection of a session (roster, family, keyword, shard) excludes a model; from the saved JSON alone."""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Callable

from embedcore.results.result import Result
from embedcore.results.run import Run

_FILES = (".txt", ".toml", ".csv")
_HUB = re.compile(r"^(?:hf[-_]hub:)?timm/")


def exclusion(run: Run) -> Callable[[Result], bool]:
    """Return whether the run's session left out a model on purpose; False where the saved selection does not tell.

    Names and keywords are understood as far as they explain the models that the run has: an expression that would have
    excluded one of them means something else, such as the name of a test.
    """
    slugs = {slug.strip().lower() for slug in _texts(run, "family")}
    others = frozenset(_texts(run, "other_shards"))
    present = (*run.results, *run.excluded)
    rules = [rule for rule in (_not_in_roster, _not_in_keyword) if not any(rule(run, result) for result in present)]

    def excludes(result: Result) -> bool:
        other_family = bool(slugs) and result.family.lower() not in slugs
        return other_family or result.model in others or any(rule(run, result) for rule in rules)

    return excludes


def _not_in_roster(run: Run, result: Result) -> bool:
    """Whether the roster names models, and not this one."""
    parts = _text(run, "roster").replace(",", " ").split()
    old_names = [old for old, now in run.renamed.items() if now == result.model]
    return bool(parts) and not any(_may_name(part, result, old_names) for part in parts)


def _may_name(part: str, result: Result, old_names: list[str]) -> bool:
    """Whether a part of a roster names the model, or may do so: the contents of files and folders are not saved."""
    name = _HUB.sub("", part)
    if part == "all":
        return not result.own
    if part in ("starter", "local", "article") or "/" in name or name.startswith(("~", ".")) or name.endswith(_FILES):
        return True
    if name == result.architecture:
        return result.default_tag in (None, result.tag)
    globs = (name,) if "." in name else (name, f"{name}.*")
    is_glob = any(sign in name for sign in "*?[")
    return any(
        fnmatch.fnmatchcase(known, glob) if is_glob else known == name
        for known in (result.model, *old_names)
        for glob in globs
    )


def _not_in_keyword(run: Run, result: Result) -> bool:
    """Whether pytest's ``-k`` deselects the case of the model."""
    case = f"test_model[{result.model}]".lower()
    return _evaluated(_text(run, "keyword"), lambda word: word.lower() in case) is False


def _evaluated(expression: str, holds: Callable[[str], bool]) -> bool | None:
    """Return the value of an expression of pytest's ``-k``; None if it is empty or not one.

    >>> _evaluated("not (vit or swin) and small", "vit_small".__contains__)
    False
    """
    words: list[str] = []

    def named(word: re.Match[str]) -> str:
        """Return a Python name for a word of the expression, which need not be one."""
        if word[0] in ("and", "or", "not"):
            return word[0]
        words.append(word[0])
        return f"w{len(words) - 1}"

    python = re.sub(r"[^\s()]+", named, expression)

    def value(node: ast.expr) -> bool:
        match node:
            case ast.Name(name):
                return holds(words[int(name[1:])])
            case ast.UnaryOp(ast.Not(), operand):
                return not value(operand)
            case ast.BoolOp(operator, operands):
                return (any if isinstance(operator, ast.Or) else all)([value(operand) for operand in operands])
        raise ValueError(expression)

    try:
        return value(ast.parse(" ".join(python.split()), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _text(run: Run, key: str) -> str:
    value = run.selection.get(key)
    return value if isinstance(value, str) else ""


def _texts(run: Run, key: str) -> list[str]:
    value = run.selection.get(key)
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
