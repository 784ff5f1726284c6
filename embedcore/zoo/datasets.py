"""timm's dataset factory: what its schemes ``hfds/``, ``hfids/``, ``tfds/``, ``wds/`` and ``torch/`` open."""

from __future__ import annotations

from typing import Any

from timm.data.dataset_factory import create_dataset

from embedcore.errors import UsageError

_PACKAGES = {"hfds": "datasets", "hfids": "datasets", "tfds": "tensorflow-datasets tensorflow", "wds": "webdataset"}


def open_timm_dataset(name: str, *, root: str | None, split: str, download: bool) -> Any:
    """timm's own dataset object for a name such as ``torch/mnist``; images as timm gives them, no transform.

    ``name`` keeps its scheme. Raises UsageError where a package or the data are missing; what timm, torchvision or the
    library behind a scheme said is in the message and its traceback in the cause.
    """
    place = f"root={root}" if root else "no root given"
    try:
        return create_dataset(name, root=root, split=split, download=download, is_training=False)
    except ImportError as error:
        scheme = name.partition("/")[0]
        needed = f"a package that is not installed: pip install {_PACKAGES.get(scheme, scheme)} ({error})"
        raise UsageError(f"dataset {name} needs {needed}") from error
    except (AssertionError, RuntimeError, OSError, ValueError, KeyError, TypeError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"cannot open dataset {name} (split {split}, {place}): {said}; "
            f"name its folder and split as '{name},root=FOLDER,split=SPLIT'; ',download=true' lets timm fetch it"
        ) from error
