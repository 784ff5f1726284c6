"""Forecast of what a run will download and write to disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedcore.durations import show_range
from embedcore.errors import UnsupportedModel
from embedcore.files import SPARE_BYTES, free_bytes
from embedcore.images.geometry import geometry_of
from embedcore.images.pixel_store import FOLDER
from embedcore.plain import bytes_text, counted
from embedcore.results.estimate import estimate_range, rough_range
from embedcore.zoo.holdings import Holding, find_holding, own_holding
from embedcore.zoo.hub import OFFLINE, cache_folder, is_offline
from embedcore.zoo.own_models import OwnModel
from embedcore.zoo.registry import known_params_m
from embedcore.zoo.transforms import data_config
from embedcore.zoo.weights import check_policy

TRIFLE = 100_000_000
"""Minimum bytes of pixels for a note."""
LONG_S = 600.0
"""Minimum seconds of all cases for a note."""
_LONG_GMACS = 5_000.0
"""Minimum billions of multiply-accumulates of all cases for a rough figure of their time."""


@dataclass(frozen=True)
class Forecast:
    """Sizes in bytes; unknown ones count as 0."""

    models: int
    too_large: int
    """Number of models that --embed-max-params excludes."""
    holdings: tuple[Holding, ...]
    """Where the weights of the other models are; empty for random weights."""
    images: int
    geometries: int
    pixels: int
    """Bytes of the pixel stores of all geometries."""
    pixels_made: int
    """Bytes of the pixel stores that exist already."""
    cache: Path
    seconds: tuple[float, float] | None = None
    """Range of the time that the cases take, without downloads; None if it is not known."""
    is_rough: bool = False
    """Whether that follows from the machine's speed, not from an earlier run on it."""
    gmacs: tuple[float | None, ...] = ()
    """GMACs of each model that --embed-max-params does not exclude; None if not known."""

    @property
    def to_fetch(self) -> tuple[Holding, ...]:
        return tuple(holding for holding in self.holdings if holding.place == "hub")

    @property
    def here(self) -> tuple[Holding, ...]:
        return tuple(holding for holding in self.holdings if holding.place in ("folder", "wheel", "cache", "own"))

    @property
    def weights_folder(self) -> Path | None:
        """Where downloads go; None if there are none."""
        first = next((holding.remote for holding in self.to_fetch if holding.remote), None)
        return cache_folder(first) if first else None

    @property
    def fetched_bytes(self) -> int:
        return sum(holding.size or 0 for holding in self.to_fetch)

    @property
    def pixels_to_make(self) -> int:
        return self.pixels - self.pixels_made

    @property
    def notable(self) -> bool:
        """Whether there is anything to download, or much to write."""
        return bool(self.to_fetch) or self.pixels_to_make >= TRIFLE or (self.seconds or (0.0, 0.0))[1] >= LONG_S

    @property
    def lacking(self) -> str:
        """Why the disk cannot hold the downloads, "" if it can; pixels that do not fit are streamed."""
        if is_offline() or self.weights_folder is None:
            return ""
        free = free_bytes(self.weights_folder)
        if free is None or free >= self.fetched_bytes + SPARE_BYTES:
            return ""
        what = f"the weights of {counted(len(self.to_fetch), 'model')} take about {bytes_text(self.fetched_bytes)}"
        return f"{what}, and {self.weights_folder} has {bytes_text(free)} free"

    def lines(self) -> list[str]:
        """Return a line each for downloads and pixel stores, with the free space, and for the time, if known."""
        lines = []
        if self.to_fetch and is_offline():
            lines.append(f"weights: {counted(len(self.to_fetch), 'model')} not on this machine, and {OFFLINE}: skipped")
        elif self.weights_folder is not None:
            size = f"about {bytes_text(self.fetched_bytes)}" if self.fetched_bytes else "of unknown size"
            room = _room(self.weights_folder, self.fetched_bytes)
            lines.append(
                f"weights: {counted(len(self.to_fetch), 'model')} to fetch, {size}, into {self.weights_folder} {room}"
            )
        if self.pixels_to_make:
            what = counted(self.geometries, "input geometry", "input geometries")
            made = f" ({bytes_text(self.pixels_made)} exist)" if self.pixels_made else ""
            folder = self.cache / FOLDER
            lines.append(
                f"pixels: up to {bytes_text(self.pixels)}{made}, for {self.images:,} images in {what}, in {folder} "
                f"{_room(folder, self.pixels_to_make)}"
            )
        if self.seconds and self.seconds[1]:
            about, source = "about", "an earlier run on this machine"
            if self.is_rough:
                about, source = "roughly", "the speed of this machine, on which no run is known"
            lines.append(f"time: {about} {show_range(*self.seconds)} plus downloads, estimated from {source}")
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
    costs: Mapping[str, float | None] = {},
    earlier: Sequence[tuple[float, float]] = (),
    speed: Callable[[], float | None] | None = None,
    processes: int = 1,
) -> Forecast:
    """Return the forecast of a run of these models (own ones with their entry) on ``images`` images; asks no hub.

    ``fingerprint``: the dataset's, if known, to find existing pixel stores. ``costs``: GMACs by model; ``earlier``:
    (GMACs, seconds) of cases like these, see `earlier_costs`. ``speed``: measures the GMACs a second of this machine,
    and is called for a rough figure of a long run without earlier ones; ``processes``: in how many each case is timed.
    Raises UsageError.
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
            except UnsupportedModel:  # the case will be skipped
                continue
            sizes[geometry.key] = images * geometry.height * geometry.width * 3
    work = [costs.get(model) for model in kept]
    seconds = estimate_range(earlier, work)
    is_long = images * sum(filter(None, work)) >= _LONG_GMACS
    rate = speed() if seconds is None and speed is not None and is_long else None
    stores = (cache / FOLDER).glob(f"{fingerprint[:16]}-*.npy") if fingerprint else ()
    there = {path.name.split("-", 1)[1].rpartition("-")[0] for path in stores}
    return Forecast(
        models=len(models),
        too_large=len(models) - len(kept),
        holdings=holdings,
        images=images,
        geometries=len(sizes),
        pixels=sum(sizes.values()),
        pixels_made=sum(size for key, size in sizes.items() if key in there),
        cache=cache,
        seconds=seconds if rate is None else rough_range(rate, work, images, processes),
        is_rough=rate is not None,
        gmacs=tuple(work),
    )


def _room(folder: Path, needed: int) -> str:
    free = free_bytes(folder)
    if free is None:
        return ""
    return f"({bytes_text(free)} free{': NOT ENOUGH' if needed > free else ''})"
