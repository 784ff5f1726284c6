"""Rewrite embedcore/zoo/article.txt: for each name of the 2022 study, today's tag with the same weights.

    python -m pip download --no-deps timm==0.5.4 timm==0.6.5   # one call each; unzip each wheel into a folder
    python scripts/make_article.py timm-0.5.4 timm-0.6.5

Run it with the newest timm installed. The folders contain the timm of the study (0.5.4; names without weights there are
looked up in 0.6.5) and are imported in separate processes. Names, their order and comments are kept from the file. The
study's weights of a name are identified by the file name in its old URL:

1. Today's tag whose URL has the same file name has the same weights.
2. Most of today's tags have no URL. Then the tag is the one in timm's table of renamed models, or the only one of the
   architecture; if it has several, the origin in the old URL (HINTS) must leave one.
3. If the tag of step 2 has a URL, its file must be the same except for the hash, or it has other weights.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from embedcore.zoo import registry

ARTICLE = Path(__file__).resolve().parent.parent / "embedcore" / "zoo" / "article.txt"

# (pattern of an old URL, pattern of today's tags with weights of that origin); the first match counts.
HINTS = (
    (r"pt22k_ft22kto1k", r"in22k_ft_in22k_in1k"),
    (r"pt22k_ft22k\.", r"in22k_ft_in22k"),
    (r"1k_miil", r"(miil_)?in21k_ft_in1k"),
    (r"v0\.1-tresnet/tresnet_x?l_8", r"miil_in1k"),
    (r"v0\.1-regnet/", r"pycls_in1k"),
    (r"v0\.1-hrnet/", r"ms_in1k"),
    (r"/tf_xception|/inception_resnet_v2-", r"tf_in1k"),
    (r"_ra-[0-9a-f]{8}", r"ra_in1k"),
    (r"download\.pytorch\.org/models/[a-z]", r"tv_in1k"),
)
READ_OLD = """
import json, warnings
warnings.filterwarnings("ignore")
from timm.models import registry
table = getattr(registry, "_model_default_cfgs", None) or registry._model_pretrained_cfgs
print(json.dumps({name: cfg["url"] for name, cfg in table.items() if cfg.get("url")}))
"""


def old_urls(folder: Path) -> dict[str, str]:
    """Return model → URL of its weights in an unpacked old timm."""
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", READ_OLD], capture_output=True, text=True, check=True, env=environ)
    urls: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return urls


def file_name(url: object) -> str:
    """Return the file name of a URL of timm, which may be a pair (URL, file name)."""
    return Path(urlsplit(str(url[0] if isinstance(url, (list, tuple)) else url)).path).name


def stem(file: str) -> str:
    """Return a file name without the parts that a new upload of the same weights changes.

    >>> stem("ECAResNet50D_P_9c67f710.pth"), stem("ecaresnet50d_p-e4fa23c2.pth"), stem("legacy_senet154-e9eb9fe6.pth")
    ('ecaresnet50d_p', 'ecaresnet50d_p', 'senet154')
    """
    base = re.sub(r"[-_][0-9a-f]{8,9}$", "", file.partition(".")[0].lower())
    return base.removeprefix("legacy_").replace("-", "_")


def tag_of(name: str, url: str, by_file: Mapping[str, str], tags: Mapping[str, Mapping[str, object]]) -> str:
    """Return the tag with a name's weights in 2022, or ": " and the reason why there is none."""
    file = file_name(url)
    if file in by_file:
        return by_file[file]
    today = registry.renamed_models().get(name) or name.removesuffix("_in22k")  # which timm's table lacks
    candidates = [tag for tag in tags if today in (tag, registry.split_tag(tag)[0])]
    if len(candidates) > 1:
        allowed = next((tag for pattern, tag in HINTS if re.search(pattern, url)), "")
        candidates = [tag for tag in candidates if re.fullmatch(allowed, registry.split_tag(tag)[1])]
    if len(candidates) > 1:
        raise SystemExit(f"{name}: {url} may be any of {candidates}: add a hint")
    if not candidates:
        return f": timm has dropped these weights ({file})"
    new_url = tags[candidates[0]].get("url")
    if new_url and stem(file_name(new_url)) != stem(file):
        return f": timm has other weights in its place, {candidates[0]} ({file_name(new_url)}, then {file})"
    return candidates[0]


def rewritten(lines: Iterable[str], urls: Mapping[str, str]) -> Iterable[str]:
    """Yield the lines of the file with today's tags."""
    tags = {tag: registry.pretrained_cfg(tag) for tag in registry.pretrained_tags()}
    by_file = {file_name(cfg["url"]): tag for tag, cfg in tags.items() if cfg.get("url")}
    for line in lines:
        name = re.split(r" -> |: ", line)[0].strip()
        if not name or line.startswith("#"):
            yield line
        elif name not in urls:
            raise SystemExit(f"{name}: not in the old timm either")
        else:
            found = tag_of(name, urls[name], by_file, tags)
            yield name + (found if found.startswith(": ") else f" -> {found}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="unpacked versions of timm, the preferred one first")
    urls: dict[str, str] = {}
    first: dict[str, str] = {}
    for folder in parser.parse_args().folders:
        found = old_urls(folder)
        first = first or found
        urls = {**found, **urls}
    lines = list(rewritten(ARTICLE.read_text(encoding="utf-8").splitlines(), urls))
    ARTICLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    named = {re.split(r" -> |: ", line)[0] for line in lines}
    for name in sorted(first.keys() - named):
        print(f"not in the file: {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
