"""Progress bars for what takes long, on a terminal only and past pytest's output capture."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tqdm import tqdm

from embedcore.progress import Progress

if TYPE_CHECKING:
    import pytest

# A case that is done sooner than this shows no bar, so that pytest's own line stays as it is.
QUIET_S = 2.0


@contextlib.contextmanager
def progress_bars(config: pytest.Config) -> Iterator[Callable[[str], Progress]]:
    """Gives ``progress_for(what)``; the bars it makes vanish at the end.

    Nothing is shown where standard error is no terminal (CI logs) or with ``-q``.
    """
    capture = config.pluginmanager.getplugin("capturemanager")
    reveal = capture.global_and_fixture_disabled if capture else contextlib.nullcontext
    with contextlib.ExitStack() as open_bars:

        def progress_for(what: str) -> Progress:
            with reveal():
                shown = config.get_verbosity() >= 0 and sys.stderr.isatty()
                bar: tqdm[None] = tqdm(desc=what, unit="img", leave=False, disable=not shown, delay=QUIET_S)
            open_bars.callback(_close, bar)

            def progress(done: int, total: int) -> None:
                with reveal():
                    bar.total = total
                    bar.update(done - bar.n)

            return progress

        def _close(bar: tqdm[None]) -> None:
            with reveal():
                bar.close()

        yield progress_for
