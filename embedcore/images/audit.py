"""The audit: every image is looked at once, before anything is measured, and all that cannot be read are found."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedcore.images.decode import DAMAGE, BadImageError, ImageFacts, ImageUnavailable, reason_of, shape_refusal
from embedcore.images.duplicates import perceptual_hash
from embedcore.images.ledger import Ledger, Stamp, stamp_of
from embedcore.images.retries import is_transient, retried
from embedcore.images.sources import ImageSource
from embedcore.images.workers import usable_cpus
from embedcore.progress import Progress

CHUNK = 1024  # images looked at before what was found out is kept: as many an interrupted audit loses at most

LOOK_EVERY_S = 60.0  # at files that have been audited: whether they have changed since
_THREADS = 8  # a network file system takes its time for each file
_RANGE = 1024  # files a thread looks at before another change, found meanwhile, stops it


@dataclass(frozen=True)
class Finding:
    """What the audit found out about one image."""

    digest: str = ""
    """Of its content; empty where that cannot be had."""
    facts: ImageFacts | None = None
    """None if it cannot be read, or was not decoded."""
    reason: str = ""
    """Why it cannot be read; empty if it can."""
    stamp: Stamp | None = None
    """Of its file, before it was read; None for images that are not files of their own."""


def audit(
    source: ImageSource,
    *,
    decode: bool = True,
    hashes: bool = False,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> list[Finding]:
    """Look at all images of a source, several at a time; gives their findings in order.

    Each content is read for its digest and decoded whole, once: with ``cache_dir`` what was found out is kept there,
    and a digest is relied upon while its file's size, times and inode are the same. That an image is bad is not kept
    but found out anew. Without ``decode`` images are only read; with ``hashes`` their facts have a perceptual hash.

    Raises ImageUnavailable where an image may be sound, but cannot be read at the moment.
    """
    ledger = Ledger(cache_dir)
    findings: list[Finding] = []
    facts: dict[str, ImageFacts] = {}
    # Threads read and decode: Pillow releases the interpreter lock.
    pool = ThreadPoolExecutor(max_workers=min(32, 4 + usable_cpus()), thread_name_prefix="embedcore-audit")
    try:
        for start in range(0, len(source), CHUNK):
            indices = range(start, min(start + CHUNK, len(source)))
            found = _digested(source, indices, ledger, pool)
            if decode:
                wanted = {finding.digest for finding in found} - facts.keys() - {""}
                known = ledger.facts(wanted, source.decoder)
                facts |= {key: fact for key, fact in known.items() if not hashes or fact.perceptual_hash is not None}
                wanted -= facts.keys()
                # One image of each content whose facts are not known.
                first = {one.digest: index for index, one in zip(indices, found, strict=True) if one.digest in wanted}
                new: dict[str, ImageFacts] = {}
                reasons: dict[str, str] = {}
                outcomes = pool.map(lambda index: _inspect(source, index, hashes), first.values())
                for done, (outcome, digest) in enumerate(zip(outcomes, first, strict=True), indices.stop - len(first)):
                    if progress is not None:
                        progress(done, len(source))
                    if isinstance(outcome, str):
                        reasons[digest] = outcome
                    elif _unchanged(source, first[digest], found[first[digest] - start].stamp):
                        new[digest] = outcome
                    else:
                        facts[digest] = outcome
                facts |= new
                ledger.keep({}, new, source.decoder)
                found = [_judged(one, facts, reasons, source.max_megapixels) for one in found]
            findings += found
            if progress is not None:
                progress(indices.stop, len(source))
    finally:
        pool.shutdown(cancel_futures=True)  # so that none is waited for after Ctrl-C
    return findings


def _digested(source: ImageSource, indices: Sequence[int], ledger: Ledger, pool: ThreadPoolExecutor) -> list[Finding]:
    """Findings with digests and stamps, or the reason why there are none."""
    files = [source.file(index) for index in indices]
    paths = [os.fsencode(file.absolute()) if file is not None else b"" for file in files]
    known = ledger.digests([path for path in paths if path])
    begin = time.time_ns()

    def look(index: int, file: Path | None, path: bytes) -> Finding:
        stamp = None
        try:
            stamp = retried(lambda: stamp_of(file)) if file is not None else None
            before = known.get(path)
            if before is not None and before[0] == stamp and _may_read(path):
                return Finding(before[1], stamp=stamp)
            return Finding(source.digest(index), stamp=stamp)
        except DAMAGE as error:
            if is_transient(error):
                raise ImageUnavailable(source.name(index), reason_of(error)) from error
            return Finding(reason=reason_of(error), stamp=stamp)

    found = list(pool.map(look, indices, files, paths))
    new = {
        path: (finding.stamp, finding.digest)
        for path, finding in zip(paths, found, strict=True)
        if path not in known or known[path] != (finding.stamp, finding.digest)
        if finding.digest and finding.stamp is not None
        if finding.stamp.is_settled(begin)
    }
    ledger.keep(new, {}, source.decoder)
    return found


def _may_read(path: bytes) -> bool:
    return os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids)


def _inspect(source: ImageSource, index: int, hashes: bool) -> ImageFacts | str:
    """Facts of an image, or the reason why it cannot be read."""
    try:
        rgb, facts = source.preview(index)
    except BadImageError as error:
        return error.reason
    return replace(facts, perceptual_hash=perceptual_hash(rgb)) if hashes else facts


def _judged(
    finding: Finding, known: Mapping[str, ImageFacts], reasons: Mapping[str, str], max_megapixels: float
) -> Finding:
    """The finding with what is known of its content, or why that is not read."""
    facts = known.get(finding.digest)
    reason = finding.reason or reasons.get(finding.digest, "")
    if facts is not None and not reason:  # also of facts that were kept under another limit
        reason = shape_refusal(facts.width, facts.height, max_megapixels)
    return replace(finding, facts=None if reason else facts, reason=reason)


def _unchanged(source: ImageSource, index: int, stamp: Stamp | None) -> bool:
    """Whether what was decoded is what the digest is of."""
    file = source.file(index)
    with suppress(OSError):
        return file is None or stamp_of(file) == stamp
    return False


class FileWatch:
    """Watches the files of a source whose contents had these digests and stamps."""

    def __init__(self, source: ImageSource, digests: Sequence[str], stamps: Sequence[Stamp | None]) -> None:
        self._source = source
        self._digests = digests
        # Numbers instead of objects: there may be a million. -1 where there is no stamp.
        self._stamps: NDArray[np.int64] = np.array([stamp or (-1,) * 4 for stamp in stamps], np.int64).reshape(-1, 4)
        self._unchanged_at: float | None = None
        self._unsure = False
        """Whether the last look met a file that could not be read at that moment."""

    def change(self, *, now: bool = False) -> str | None:
        """As :meth:`Dataset.changed`. Files whose content is the same (a backup has set a time) are not read again."""
        begin = time.monotonic()
        if not now and self._unchanged_at is not None and begin - self._unchanged_at < LOOK_EVERY_S:
            return None
        self._unsure = False
        with ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="embedcore-changes") as pool:
            change = next(filter(None, pool.map(self._change_in, range(0, len(self._digests), _RANGE))), None)
        self._unchanged_at = begin if change is None and not self._unsure else None
        return change

    def _change_in(self, start: int) -> str | None:
        indices = range(start, min(start + _RANGE, len(self._digests)))
        return next(filter(None, (self._change_of(index) for index in indices if self._stamps[index, 0] >= 0)), None)

    def _change_of(self, index: int) -> str | None:
        file, name = self._source.file(index), self._source.name(index)
        if file is None or self._unsure:  # a server that is gone is not waited for again at each file
            return None
        try:
            stamp = retried(lambda: stamp_of(file))
            if stamp == tuple(self._stamps[index]):
                return None
            if self._source.digest(index) == self._digests[index]:
                self._stamps[index] = stamp
                return None
        except (OSError, ImageUnavailable) as error:
            if isinstance(error, ImageUnavailable) or is_transient(error):
                self._unsure = True
                return None
            return f"image {name!r} can no longer be read: {reason_of(error)}"
        return f"image {name!r} has changed since the dataset was loaded"
