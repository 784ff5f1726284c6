"""Datasets of the Hugging Face hub, ``hf://datasets/NAME``: a local copy if there is one, else files on the hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from embedcore.errors import UsageError
from embedcore.images.folders import has_images
from embedcore.images.image_shards import chosen_shards, shards_of

PREFIX = "hf://datasets/"
_ADDRESS = re.compile(r"([\w.-]+(?:/[\w.-]+)?)(?:@([^/@]+))?((?:/[^/@]+)*)/?", re.ASCII)


@dataclass(frozen=True)
class HubSet:
    """A dataset on the hub, as the user names it."""

    repo: str
    revision: str | None
    folder: str
    """In the repository; "" for all of it."""


def hub_set(address: str) -> HubSet:
    """Return what ``hf://datasets/USER/NAME[@REVISION][/FOLDER]`` names. Raises UsageError for anything else.

    >>> hub_set("hf://datasets/user/name@main/data")
    HubSet(repo='user/name', revision='main', folder='data')
    """
    found = _ADDRESS.fullmatch(address.removeprefix(PREFIX))
    if found is None or {".", ".."} & {*address.split("/")}:
        raise UsageError(f"{address} is not of the form {PREFIX}USER/NAME[@REVISION][/FOLDER]")
    return HubSet(found[1], found[2], found[3].strip("/"))


def local_copy(wanted: HubSet) -> Path | None:
    """Return the folder of a dataset in the caches of huggingface_hub or ``datasets``; None if it is in neither.

    Raises UsageError if the latter has several versions or configurations of it.
    """
    from huggingface_hub import constants, errors, snapshot_download

    try:
        root = snapshot_download(
            wanted.repo,
            repo_type="dataset",
            revision=wanted.revision,
            allow_patterns=f"{wanted.folder}/*" if wanted.folder else None,
            local_files_only=True,
        )
        folder = Path(root, wanted.folder)
        if shards_of(folder) or (folder.is_dir() and has_images(folder)):
            return folder
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        pass
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME, "datasets"))
    tables = cache.glob(f"{wanted.repo.replace('/', '___')}/{wanted.folder or '*'}/*/*/*.arrow")
    found = sorted({file.parent for file in tables if shards_of(file.parent)}) if wanted.revision is None else []
    if len(found) > 1:
        raise UsageError(
            f"{PREFIX}{wanted.repo}: the cache of datasets has {len(found)} versions or configurations of it: "
            f"name the folder of one, such as {found[0]}"
        )
    return found[0] if found else None


def remote_shards(wanted: HubSet) -> tuple[str, list[str]]:
    """Return the address of a dataset's current commit on the hub, and its Parquet files. Raises UsageError."""
    from huggingface_hub import HfApi, HfFileSystem

    from embedcore.zoo.credentials import first_line
    from embedcore.zoo.hub import Hub
    from embedcore.zoo.registry import RemoteFile

    address = PREFIX + wanted.repo
    reason = Hub().why_unreachable(RemoteFile(repo=wanted.repo))
    if reason:
        raise UsageError(f"{address} is not in the cache and {reason}")
    try:
        commit = HfApi().dataset_info(wanted.repo, revision=wanted.revision).sha
        root = "/".join(filter(None, (f"{address}@{commit}", wanted.folder)))
        place = root.removeprefix("hf://")
        files = HfFileSystem().find(place, maxdepth=2)
    except Exception as error:  # each version of the HTTP library has its own
        raise UsageError(f"{address} cannot be listed: {first_line(error)}") from error
    shards = chosen_shards(name.removeprefix(f"{place}/") for name in files if name.endswith(".parquet"))
    if not shards:
        remedy = f"download it (hf download --repo-type dataset {wanted.repo}), or name a folder in it"
        raise UsageError(f"{root} has no Parquet files that can be read on the hub: {remedy}")
    return root, shards
