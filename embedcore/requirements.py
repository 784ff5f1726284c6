"""The packages of this environment as exact pip requirements, from which the environment can be built again."""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from embedcore.files import code_hash

CODE = ("timm", "embedcore")
"""Packages whose code is hashed where no version or commit identifies it."""


class Distribution(NamedTuple):
    """An installed distribution."""

    name: str
    """Normalised, such as ``huggingface-hub``."""
    version: str
    metadata: Path
    """Its ``.dist-info`` folder."""

    @property
    def folder(self) -> Path:
        """The folder that its packages are in; of a local or editable installation the source folder."""
        direct = self.direct_url()
        url = str(direct.get("url", ""))
        local = "dir_info" in direct and url.startswith("file:///")
        return Path(unquote(url.removeprefix("file://"))) if local else self.metadata.parent

    def contains(self, file: Path) -> bool:
        """Whether a file lies in its folder, or in ``site-packages`` beside its metadata."""
        resolved = file.resolve()
        return any(resolved.is_relative_to(folder.resolve()) for folder in (self.folder, self.metadata.parent))

    def requirement(self) -> str:
        """Return its exact requirement: ``name==version``, or ``name @ URL`` if it is not from an index."""
        direct = self.direct_url()
        url = _without_credentials(str(direct.get("url", "")))
        match direct:
            case {"vcs_info": {"vcs": str(vcs), "commit_id": str(commit)}}:
                return f"{self.name} @ {vcs}+{url}@{commit}"
            case {"dir_info": _}:
                return local_requirement(self.name, self.folder)
            case {"url": _}:
                return f"{self.name} @ {url}"
        return f"{self.name}=={self.version}"

    def direct_url(self) -> dict[str, Any]:
        """Return the content of its ``direct_url.json`` (PEP 610), which only installations from no index have."""
        try:
            found = json.loads((self.metadata / "direct_url.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def distributions() -> dict[str, Distribution]:
    """Return the installed distributions by normalised name; the first one on the path counts.

    From the names of the ``.dist-info`` folders alone, which takes about 2 ms for 100 distributions.
    """
    found: dict[str, Distribution] = {}
    for entry in sys.path:
        for metadata in sorted(Path(entry or ".").absolute().glob("*.dist-info")):
            name, _, version = metadata.stem.partition("-")
            found.setdefault(normalised(name), Distribution(normalised(name), version, metadata))
    return found


def installed_requirements() -> list[str]:
    """Return the exact requirement of each installed distribution, sorted.

    timm or embedcore imported from elsewhere, such as a folder in PYTHONPATH, is a local requirement.
    """
    found = {name: distribution.requirement() for name, distribution in distributions().items()}
    for name in CODE:
        folder = shadowing(name)
        if folder is not None:
            found[name] = local_requirement(name, folder)
    return sorted(found.values())


def shadowing(name: str) -> Path | None:
    """Return the folder from which a package is imported, if it is not the installed one; None otherwise."""
    file = imported_file(name)
    installed = distributions().get(name)
    if file is None or (installed is not None and installed.contains(file)):
        return None
    return file.parents[1]


def imported_file(name: str) -> Path | None:
    """Return the file of a package that ``import`` loads; None if there is none."""
    try:
        spec = find_spec(name)
    except ValueError:  # loaded without a specification
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def local_requirement(name: str, folder: Path) -> str:
    """Return the requirement of a source folder, with the hash of its code for the packages of `CODE`."""
    package = next((path for path in (folder / name, folder / "src" / name) if path.is_dir()), None)
    if name not in CODE or package is None:
        return f"{name} @ {folder.as_uri()}"
    return f"{name} @ {folder.as_uri()}#sha256={code_hash(package, package.rglob('*.py'))[:16]}"


def name_of(requirement: str) -> str:
    """Return the normalised name of a requirement; "" for a bare URL or path.

    >>> name_of("Huggingface_Hub[cli]>=0.25"), name_of("timm @ git+https://host/timm@1"), name_of("git+file:///timm")
    ('huggingface-hub', 'timm', '')
    """
    found = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^]]*\])?\s*(?=$|[@<>=!~;\s])", requirement)
    return normalised(found[1]) if found else ""


def pinned_version(requirement: str) -> str | None:
    """Return the version of a requirement that names exactly one.

    >>> pinned_version("timm==1.0.20"), pinned_version("timm"), pinned_version("timm==1.*"), pinned_version("timm>=1")
    ('1.0.20', None, None, None)
    """
    found = re.fullmatch(r"\s*[A-Za-z0-9._-]+\s*(?:\[[^]]*\])?\s*===?\s*([A-Za-z0-9.+!-]+)\s*", requirement)
    return found[1] if found else None


def is_fixed(requirement: str) -> bool:
    """Whether a requirement always names the same code: an exact version, or a full commit of git.

    >>> is_fixed("timm==1.0.20"), is_fixed("timm"), is_fixed("timm @ git+https://host/timm@" + 40 * "a")
    (True, False, True)
    """
    commit = re.search(r"git\+\S+@[0-9a-f]{40}(#.*)?$", requirement)
    return pinned_version(requirement) is not None or commit is not None


def normalised(name: str) -> str:
    """Return a distribution's name in lower case with hyphens, so that two spellings are equal."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _without_credentials(url: str) -> str:
    return re.sub(r"//(?!git@)[^/@]*@", "//", url)
