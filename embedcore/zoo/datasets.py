"""timm's dataset factory, for its schemes ``hfds/``, ``hfids/``, ``tfds/``, ``wds/`` and ``torch/``."""

from __future__ import annotations

from typing import Any

from timm.data.dataset_factory import create_dataset

from embedcore.errors import UsageError

_PACKAGES = {"hfds": "datasets", "hfids": "datasets", "tfds": "tensorflow-datasets tensorflow", "wds": "webdataset"}


def open_timm_dataset(name: str, *, root: str | None, split: str, download: bool) -> Any:
    """Return timm's dataset object for a name with its scheme, such as ``torch/mnist``, without a transform.

    Raises UsageError if a package or the data are missing, with the message of the library behind the scheme.
    """
    place = f"root={root}" if root else "no root given"
    try:
        return create_dataset(name, root=root, split=split, download=download, is_training=False)
    except ImportError as error:
        scheme = name.partition("/")[0]
        needed = f"a package that is not installed: pip install {_PACKAGES.get(scheme, scheme)} ({error})"
        raise UsageError(f"dataset {name} needs {needed}") from error
    except (AssertionError, RuntimeError, OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"cannot open dataset {name} (split {split}, {place}): {reason}; "
            f"name its folder and split as '{name},root=FOLDER,split=SPLIT'; ',download=true' lets timm fetch it"
        ) from error
