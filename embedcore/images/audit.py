"""The audit: read and decode every image once before anything is measured, and find all that cannot be read."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedcore.images.decode import DAMAGE, BadImageError, ImageFacts, ImageUnavailable, reason_of, shape_refusal
from embedcore.images.digests import Digests
from embedcore.images.duplicates import perceptual_hash
from embedcore.images.ledger import Ledger, Stamp, stamp_of
from embedcore.images.retries import is_transient, retried
from embedcore.images.sources import ImageSource
from embedcore.images.workers import usable_cpus
from embedcore.progress import Progress

CHUNK = 1024  # images audited before the ledger is written: the most that an interrupt loses
_RUN = 32  # images whose stamps one thread compares at a time


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of the audit for one image."""

    digest: str = ""
    """SHA-256 (hex) of the content; empty if it cannot be read."""
    facts: ImageFacts | None = None
    """None if the image cannot be read or was not decoded."""
    reason: str = ""
    """Why the image cannot be read; empty if it can."""
    stamp: Stamp | None = None
    """Stamp of the file before it was read; None for images that are not in files."""


class Findings(Sequence[Finding]):
    """Findings on n images without their stamps, in 52 bytes each."""

    def __init__(self, total: int) -> None:
        self.reasons: dict[int, str] = {}
        """By index of the image, ascending."""
        self.digests = Digests(np.zeros((total, 32), np.uint8))
        self._sizes = np.zeros((total, 2), np.int32)
        self._hashes = np.zeros(total, np.uint64)
        self._kinds = np.zeros(total, np.int32)  # index in _known
        self._known: dict[Any, int] = {None: 0}  # mode, format, animated and whether there is a hash

    def keep(self, index: int, finding: Finding) -> None:
        """Store the finding on an image."""
        if finding.reason:
            self.reasons[index] = finding.reason
        if finding.digest:
            self.digests.rows[index] = np.frombuffer(bytes.fromhex(finding.digest), np.uint8)
        if facts := finding.facts:
            kind = facts.mode, facts.format, facts.animated, facts.perceptual_hash is not None
            self._kinds[index] = self._known.setdefault(kind, len(self._known))
            self._sizes[index] = facts.width, facts.height
            self._hashes[index] = facts.perceptual_hash or 0

    def animated(self) -> list[int]:
        """Return the indices of the animated images."""
        kinds = [number for kind, number in self._known.items() if kind and kind[2]]
        return np.flatnonzero(np.isin(self._kinds, kinds)).tolist()

    def __len__(self) -> int:
        return len(self._kinds)

    def __getitem__(self, index: Any) -> Any:
        facts = None
        if kind := [*self._known][self._kinds[index]]:
            mode, name, animated, hashed = kind
            width, height = self._sizes[index].tolist()
            facts = ImageFacts(width, height, mode, name, animated, int(self._hashes[index]) if hashed else None)
        digest = self.digests[index] if self.digests.rows[index].any() else ""
        return Finding(digest, facts, self.reasons.get(index, ""))


def audit(
    source: ImageSource,
    *,
    decode: bool = True,
    hashes: bool = False,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Findings:
    """Return the findings on all images of a source, in order.

    Each file is read for its digest, and each content is decoded once (without a ledger: once for each ``CHUNK``). The
    ledger in ``cache_dir`` keeps digests, which are reused while a file's stamp is the same, and facts; bad images are
    decoded again each time. Without ``decode`` images are only read. With ``hashes`` the facts include a perceptual
    hash.

    Raises ImageUnavailable for an image that may be sound but cannot be read now.
    """
    ledger = Ledger(cache_dir)
    findings = Findings(len(source))
    # Threads read and decode: Pillow releases the interpreter lock.
    pool = ThreadPoolExecutor(max_workers=min(32, 4 + usable_cpus()), thread_name_prefix="embedcore-audit")
    try:
        for start in range(0, len(source), CHUNK):
            indices = range(start, min(start + CHUNK, len(source)))
            found = _digested(source, indices, ledger, pool)
            if decode:
                wanted = {finding.digest for finding in found} - {""}
                known = ledger.facts(wanted, source.decoder)
                facts = {key: fact for key, fact in known.items() if not hashes or fact.perceptual_hash is not None}
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
                        continue
                    facts[digest] = outcome
                    if _unchanged(source, first[digest], found[first[digest] - start].stamp):
                        new[digest] = outcome
                ledger.keep({}, new, source.decoder)
                found = [
                    _with_facts(one, facts.get(one.digest), reasons.get(one.digest, ""), source.max_megapixels)
                    for one in found
                ]
            for index, one in zip(indices, found, strict=True):
                findings.keep(index, one)
            if progress is not None:
                progress(indices.stop, len(source))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for queued images
    return findings


def _digested(source: ImageSource, indices: Sequence[int], ledger: Ledger, pool: ThreadPoolExecutor) -> list[Finding]:
    """Return findings with digest and stamp, or with the reason why a file cannot be read."""
    places = [source.place(index) for index in indices]
    files = [place[0] if place else None for place in places]
    keys = [_key(*place) if place else b"" for place in places]
    known = ledger.digests([key for key in keys if key])
    begin = time.time_ns()

    def read(index: int, file: Path | None, key: bytes) -> Finding:
        stamp = None
        try:
            stamp = retried(lambda: stamp_of(file)) if file is not None else None
            before = known.get(key)
            if file is not None and before is not None and before[0] == stamp and _is_readable(file):
                return Finding(before[1], stamp=stamp)
            return Finding(source.digest(index), stamp=stamp)
        except DAMAGE as error:
            if is_transient(error):
                raise ImageUnavailable(source.name(index), reason_of(error)) from error
            return Finding(reason=reason_of(error), stamp=stamp)

    images = list(zip(indices, files, keys, strict=True))
    runs = [images[start : start + _RUN] for start in range(0, len(images), _RUN)]
    found = [one for some in pool.map(lambda run: [read(*image) for image in run], runs) for one in some]
    new = {
        key: (one.stamp, one.digest)
        for key, one in zip(keys, found, strict=True)
        if one.digest and one.stamp is not None and one.stamp.is_settled(begin)
        if known.get(key) != (one.stamp, one.digest)
    }
    ledger.keep(new, {}, source.decoder)
    return found


def _is_readable(file: Path) -> bool:
    return os.access(file, os.R_OK, effective_ids=os.access in os.supports_effective_ids)


def _key(file: Path, place: str) -> bytes:
    """Return the key under which the ledger keeps the digest of a file, or of an image at a place in it."""
    return os.fsencode(file.absolute()) + (b"\0" + place.encode() if place else b"")


def _inspect(source: ImageSource, index: int, hashes: bool) -> ImageFacts | str:
    """Return the facts of an image, or the reason why it cannot be read."""
    try:
        rgb, facts = source.preview(index)
    except BadImageError as error:
        return error.reason
    return replace(facts, perceptual_hash=perceptual_hash(rgb)) if hashes else facts


def _with_facts(finding: Finding, facts: ImageFacts | None, reason: str, max_megapixels: float) -> Finding:
    """Return the finding with the facts of its content, or with the reason why it is not read."""
    reason = finding.reason or reason
    if facts is not None and not reason:  # facts may have been kept under another limit
        reason = shape_refusal(facts.width, facts.height, max_megapixels)
    return replace(finding, facts=None if reason else facts, reason=reason)


def _unchanged(source: ImageSource, index: int, stamp: Stamp | None) -> bool:
    """Return whether the decoded file is still the one that the digest was computed from."""
    place = source.place(index)
    with suppress(OSError):
        return place is None or stamp_of(place[0]) == stamp
    return False
