"""Find out where models' weights are, and fetch them into a folder for a machine without a network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from embedcore.errors import HubUnreachable, WeightsDamaged, WeightsGated, WeightsUnavailable
from embedcore.zoo import wheels
from embedcore.zoo.folder import find_in_folder
from embedcore.zoo.hub import Hub, find_cached
from embedcore.zoo.own_models import OwnModel
from embedcore.zoo.registry import RemoteFile, known_params_m, remote_file
from embedcore.zoo.weights import Located, fetch_weights, find_here, wheel_hint

PLACES = ("folder", "wheel", "cache", "own", "hub", "gated", "missing", "damaged")


@dataclass(frozen=True)
class Holding:
    """Where a model's weights are now.

    place: one of PLACES; "hub" can be fetched as far as this machine knows, "gated" needs terms to be accepted first.
    size: in bytes; estimated: from the number of parameters. note: why the weights are missing, gated or damaged.
    """

    model: str
    place: str
    size: int | None = None
    estimated: bool = False
    note: str = ""
    remote: RemoteFile | None = None


def find_holding(model: str, folder: Path | None = None) -> Holding:
    """Return where a model's weights are, in the order in which a run looks for them, without asking the hub."""
    try:
        here = find_here(model, folder)
        if here is not None:
            source, path = here
            inside = folder is not None and folder in path.parents
            place = "folder" if inside else "cache" if source == "hub" else "wheel"
            return Holding(model, place, path.stat().st_size)
        remote = _address(model)
    except WeightsDamaged as error:
        return Holding(model, "damaged", note=str(error))
    except WeightsUnavailable as error:
        return Holding(model, "missing", note=str(error))
    params_m = known_params_m(model)
    size = None if params_m is None else int(params_m * 4e6)
    return Holding(model, "hub", size, estimated=size is not None, remote=remote)


def own_holding(own_model: OwnModel) -> Holding:
    """Return where the file of an own model is, which is never fetched."""
    path = own_model.file
    if path is not None and path.is_file():
        return Holding(own_model.name, "own", path.stat().st_size)
    return Holding(own_model.name, "missing", note=f"{own_model.name}: {own_model.source} does not exist")


def ask_hub(holding: Holding, hub: Hub) -> Holding:
    """Return a holding with the file's size as the hub states it, or that it is gated or missing there."""
    if holding.place != "hub" or holding.remote is None or holding.remote.url:
        return holding
    try:
        _, metadata = hub.ask(holding.model, holding.remote)
    except WeightsGated as error:
        return replace(holding, place="gated", note=str(error))
    except HubUnreachable as error:
        return replace(holding, note=str(error))
    except WeightsUnavailable as error:
        return replace(holding, place="missing", size=None, estimated=False, note=str(error))
    return replace(holding, size=metadata.size, estimated=False)


def fetch_into(folder: Path, model: str, hub: Hub) -> tuple[str, Path]:
    """Make sure that a folder, laid out as the hub's cache, has a model's file; return how, and the file's path.

    how: "kept" if it was there, whole; "wheel" if an installed package has it, from which it is not copied;
        "downloaded" otherwise.

    Raises WeightsUnavailable, WeightsGated or WeightsDamaged.
    """
    path = find_in_folder(model, folder)
    if path is not None:
        return "kept", path
    try:
        path = find_cached(model, folder)
        if path is not None and _is_sound(model, path):
            return "kept", path
        wheel = wheels.find_wheel(model)
        return ("wheel", wheel[1]) if wheel else ("downloaded", hub.download(model, _address(model), folder))
    except OSError as error:
        raise WeightsUnavailable(f"{model}: {folder}: {error.strerror or error}") from error


def _is_sound(model: str, path: Path) -> bool:
    """Return whether a cached file is readable and whole; remove it if not."""
    try:
        fetch_weights(Located(model, "hub", path))
    except WeightsDamaged:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        return False
    return True


def _address(model: str) -> RemoteFile:
    remote = remote_file(model)
    if remote is None:
        raise WeightsUnavailable(f"{model}: timm has no address for its weights{wheel_hint(model)}")
    return remote
