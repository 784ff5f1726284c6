"""Choosing tags by an expression of words, as pytest's ``-k`` chooses tests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from embedcore.errors import UsageError

_TOKEN = re.compile(r"\s*([()]|[^\s()]+)")
Test = Callable[[str], bool]


def select(tags: Iterable[str], expression: str) -> list[str]:
    """The tags that an expression is true of; all of them for an empty one.

    A word is true of a tag that contains it, in whichever case; ``not``, ``and``, ``or`` and parentheses bind as in
    Python. Raises UsageError for an expression that is none.

    >>> select(["vit_tiny.in1k", "vit_base.in21k", "resnet50.in1k"], "vit and not (in21k or large)")
    ['vit_tiny.in1k']
    """
    tokens = _TOKEN.findall(expression)
    if not tokens:
        return list(tags)
    parser = _Parser(expression, tokens)
    try:
        test = parser.either()
    except RecursionError:
        raise UsageError(f"-k {expression[:40]!r}…: too many parentheses") from None
    if parser.rest:
        raise parser.error(f"'and' or 'or' is missing before {parser.rest[0]!r}")
    return [tag for tag in tags if test(tag.lower())]


class _Parser:
    """Recursive descent; each method takes its part from the front of ``rest``."""

    def __init__(self, expression: str, tokens: list[str]) -> None:
        self.expression = expression
        self.rest = tokens

    def either(self) -> Test:
        tests = [self.both()]
        while self._take("or"):
            tests.append(self.both())
        return tests[0] if len(tests) == 1 else lambda tag: any(test(tag) for test in tests)

    def both(self) -> Test:
        tests = [self.negated()]
        while self._take("and"):
            tests.append(self.negated())
        return tests[0] if len(tests) == 1 else lambda tag: all(test(tag) for test in tests)

    def negated(self) -> Test:
        if self._take("not"):
            test = self.negated()
            return lambda tag: not test(tag)
        if self._take("("):
            inner = self.either()
            if not self._take(")"):
                raise self.error("a ')' is missing")
            return inner
        if not self.rest or self.rest[0] in (")", "and", "or"):
            raise self.error(f"a word is missing {f'before {self.rest[0]!r}' if self.rest else 'at the end'}")
        word = self.rest.pop(0).lower()
        return lambda tag: word in tag

    def error(self, what: str) -> UsageError:
        return UsageError(f"-k {self.expression!r}: {what}")

    def _take(self, token: str) -> bool:
        if self.rest and self.rest[0] == token:
            del self.rest[0]
            return True
        return False
