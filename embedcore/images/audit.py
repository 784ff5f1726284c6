"""The audit: read and decode every image once before anything is measured, and find all that cannot be read."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from embedcore.images.decode import DAMAGE, BadImageError, ImageFacts, ImageUnavailable, reason_of, shape_refusal
from embedcore.images.duplicates import perceptual_hash
from embedcore.images.ledger import Ledger, Stamp, stamp_of
from embedcore.images.retries import is_transient, retried
from embedcore.images.sources import ImageSource
from embedcore.images.workers import usable_cpus
from embedcore.progress import Progress

CHUNK = 1024  # images audited before the ledger is written: the most that an interrupt loses


@dataclass(frozen=True)
class Finding:
    """What the audit found out about one image."""

    digest: str = ""
    """SHA-256 (hex) of the content; empty if it cannot be read."""
    facts: ImageFacts | None = None
    """None if the image cannot be read or was not decoded."""
    reason: str = ""
    """Why the image cannot be read; empty if it can."""
    stamp: Stamp | None = None
    """Stamp of the file before it was read; None for images that are not single files."""


def audit(
    source: ImageSource,
    *,
    decode: bool = True,
    hashes: bool = False,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> list[Finding]:
    """Return the findings on all images of a source, in order.

    Each file is read for its digest, and each content is decoded once. The ledger in ``cache_dir`` keeps digests, which
    are reused while a file's stamp is the same, and facts; bad images are decoded again each time. Without ``decode``
    images are only read. With ``hashes`` the facts include a perceptual hash.

    Raises ImageUnavailable for an image that may be sound but cannot be read now.
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
                        continue
                    facts[digest] = outcome
                    if _unchanged(source, first[digest], found[first[digest] - start].stamp):
                        new[digest] = outcome
                ledger.keep({}, new, source.decoder)
                found = [
                    _with_facts(one, facts.get(one.digest), reasons.get(one.digest, ""), source.max_megapixels)
                    for one in found
                ]
            findings += found
            if progress is not None:
                progress(indices.stop, len(source))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for queued images
    return findings


def _digested(source: ImageSource, indices: Sequence[int], ledger: Ledger, pool: ThreadPoolExecutor) -> list[Finding]:
    """Return findings with digest and stamp, or with the reason why a file cannot be read."""
    files = [source.file(index) for index in indices]
    paths = [os.fsencode(file.absolute()) if file is not None else b"" for file in files]
    known = ledger.digests([path for path in paths if path])
    begin = time.time_ns()

    def read(index: int, file: Path | None, path: bytes) -> Finding:
        stamp = None
        try:
            stamp = retried(lambda: stamp_of(file)) if file is not None else None
            before = known.get(path)
            effective = os.access in os.supports_effective_ids
            if before is not None and before[0] == stamp and os.access(path, os.R_OK, effective_ids=effective):
                return Finding(before[1], stamp=stamp)
            return Finding(source.digest(index), stamp=stamp)
        except DAMAGE as error:
            if is_transient(error):
                raise ImageUnavailable(source.name(index), reason_of(error)) from error
            return Finding(reason=reason_of(error), stamp=stamp)

    found = list(pool.map(read, indices, files, paths))
    new = {
        path: (one.stamp, one.digest)
        for path, one in zip(paths, found, strict=True)
        if one.digest and one.stamp is not None and one.stamp.is_settled(begin)
        if known.get(path) != (one.stamp, one.digest)
    }
    ledger.keep(new, {}, source.decoder)
    return found


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
    file = source.file(index)
    with suppress(OSError):
        return file is None or stamp_of(file) == stamp
    return False
