"""What a run is about to take on disk and from the network, before it takes it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedcore.errors import UnsupportedModel
from embedcore.images.geometry import geometry_of
from embedcore.images.pixel_store import FOLDER
from embedcore.plain import bytes_text
from embedcore.zoo.holdings import Holding, find_holding, own_holding
from embedcore.zoo.hub import OFFLINE, cache_folder, is_offline
from embedcore.zoo.own_models import OwnModel
from embedcore.zoo.registry import known_params_m
from embedcore.zoo.transforms import data_config
from embedcore.zoo.weights import check_policy

TRIFLE = 100_000_000
"""Fewer bytes of pixels need not be told unasked."""


@dataclass(frozen=True)
class Forecast:
    """Sizes in bytes; what is not known is not counted."""

    models: int
    too_large: int
    """Models that --embed-max-params leaves out."""
    holdings: tuple[Holding, ...]
    """Where the weights of the others are; none for random weights."""
    images: int
    geometries: int
    pixels: int
    """Of the stores of all geometries."""
    pixels_made: int
    """Of those that are there."""
    cache: Path

    @property
    def to_fetch(self) -> tuple[Holding, ...]:
        return tuple(holding for holding in self.holdings if holding.place == "hub")

    @property
    def here(self) -> tuple[Holding, ...]:
        return tuple(holding for holding in self.holdings if holding.place in ("folder", "wheel", "cache", "own"))

    @property
    def weights_folder(self) -> Path | None:
        """Where what is fetched goes; None where nothing is."""
        first = next((holding.remote for holding in self.to_fetch if holding.remote), None)
        return cache_folder(first) if first else None

    @property
    def fetched_bytes(self) -> int:
        return sum(holding.size or 0 for holding in self.to_fetch)

    @property
    def pixels_to_make(self) -> int:
        return self.pixels - self.pixels_made

    @property
    def worth_telling(self) -> bool:
        """Whether it is more than a trifle."""
        return bool(self.to_fetch) or self.pixels_to_make >= TRIFLE

    def lines(self) -> list[str]:
        """What is to be fetched and made, a line each, with the room there is; nothing where it is nothing."""
        lines = []
        if self.to_fetch and is_offline():
            lines.append(f"weights: {_models(len(self.to_fetch))} not on this machine, and {OFFLINE}: skipped")
        elif self.weights_folder is not None:
            size = f"about {bytes_text(self.fetched_bytes)}" if self.fetched_bytes else "of unknown size"
            room = _room(self.weights_folder, self.fetched_bytes)
            lines.append(f"weights: {_models(len(self.to_fetch))} to fetch, {size}, into {self.weights_folder} {room}")
        if self.pixels_to_make:
            what = f"{self.geometries} input geometr{'y' if self.geometries == 1 else 'ies'}"
            made = f", {bytes_text(self.pixels_made)} of it there" if self.pixels_made else ""
            folder = self.cache / FOLDER
            lines.append(
                f"pixels: up to {bytes_text(self.pixels)}{made}, for {self.images:,} images in {what}, in {folder} "
                f"{_room(folder, self.pixels_to_make)}"
            )
        return lines


def forecast(
    models: Mapping[str, OwnModel | None],
    images: int,
    cache: Path,
    *,
    fingerprint: str = "",
    weights: str = "auto",
    protocol: str = "native",
    max_params: float | None = None,
) -> Forecast:
    """What a run of these models, own ones with their entry, on so many images takes; asks this machine alone.

    ``fingerprint``: of the dataset, where it is known, to see which pixel stores are there. Raises UsageError.
    """
    folder = check_policy(weights)
    kept = {
        model: own
        for model, own in models.items()
        if max_params is None or (known_params_m(own.arch or "" if own else model) or 0.0) <= max_params
    }
    holdings: tuple[Holding, ...] = ()
    if weights != "random":
        holdings = tuple(own_holding(own) if own else find_holding(model, folder) for model, own in kept.items())
    sizes = {}
    for (model, own), holding in zip(kept.items(), holdings or (None,) * len(kept), strict=True):
        if own is not None and own.embeddings:
            continue
        if holding is None or holding.place not in ("missing", "damaged", *(("hub",) if is_offline() else ())):
            try:
                geometry = geometry_of(data_config(own or model), protocol)
            except UnsupportedModel:  # it will be skipped
                continue
            sizes[geometry.key] = images * geometry.height * geometry.width * 3
    there = {path.name.split("-", 1)[1].rpartition("-")[0] for path in _stores(cache, fingerprint)}
    return Forecast(
        models=len(models),
        too_large=len(models) - len(kept),
        holdings=holdings,
        images=images,
        geometries=len(sizes),
        pixels=sum(sizes.values()),
        pixels_made=sum(size for key, size in sizes.items() if key in there),
        cache=cache,
    )


def _stores(cache: Path, fingerprint: str) -> list[Path]:
    return list((cache / FOLDER).glob(f"{fingerprint[:16]}-*.npy")) if fingerprint else []


def free_bytes(folder: Path) -> int | None:
    """Free space where a folder is or would be made; None where that is not known."""
    for place in (folder, *folder.absolute().parents):
        if place.is_dir():
            try:
                return shutil.disk_usage(place).free
            except OSError:
                return None
    return None


def _room(folder: Path, needed: int) -> str:
    free = free_bytes(folder)
    if free is None:
        return ""
    return f"({bytes_text(free)} free{': NOT ENOUGH' if needed > free else ''})"


def _models(count: int) -> str:
    return f"{count:,} model{'' if count == 1 else 's'}"
