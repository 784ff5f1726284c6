"""One sweep of several models over a folder of photos, in a process of its own, by embedcore or by timm's loader.

``python sweep.py ours|loader FOLDER CACHE PRECISION BATCH_SIZE CHANNELS_LAST TAG...`` prints the seconds as JSON,
without those of imports. Both build each model with random weights, decode every photo and embed it. embedcore has its
own batch size and memory layout.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch


def sweep_ours(folder: str, cache: str, precision: str, tags: list[str]) -> list[str]:
    """Return the precision of each model."""
    from embedcore.embed.embedder import choose_settings, embed_pixels
    from embedcore.images.geometry import geometry_of
    from embedcore.images.load_dataset import load_dataset
    from embedcore.images.pixel_store import open_pixel_store
    from embedcore.zoo.backbone import load_backbone

    dataset = load_dataset(folder, cache_dir=Path(cache))
    chosen = []
    for tag in tags:
        backbone = load_backbone(tag, weights="random")
        store = open_pixel_store(dataset, geometry_of(backbone.data_config, "native"), Path(cache))
        settings, batch_size = choose_settings(backbone, store, torch.device("cpu"), precision, 16)
        embed_pixels(backbone, store, settings, batch_size=batch_size)
        chosen.append(settings.precision)
    return chosen


def sweep_loader(folder: str, precision: str, batch_size: int, channels_last: bool, tags: list[str]) -> list[str]:
    """timm's dataset, loader and model, driven as its inference script drives them (2 workers, prefetcher)."""
    import timm
    from timm.data import create_dataset, create_loader, resolve_data_config

    for tag in tags:
        model = timm.create_model(tag, num_classes=0).eval()
        if channels_last:
            model = model.to(memory_format=torch.channels_last)
        loader = create_loader(
            create_dataset(root=folder, name="", split="validation"),
            batch_size=batch_size,
            use_prefetcher=True,
            num_workers=2,
            device=torch.device("cpu"),
            # The same size as embedcore's: the script's larger test size would only cost time.
            **resolve_data_config({}, model=model, use_test_size=False),
        )
        amp = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
        with torch.inference_mode(), amp:
            for images, _ in loader:
                model(images).float().numpy()
    return [precision] * len(tags)


if __name__ == "__main__":
    way, folder, cache, precision, batch_size, channels_last, *tags = sys.argv[1:]
    begin = time.perf_counter()
    if way == "ours":
        precisions = sweep_ours(folder, cache, precision, tags)
    else:
        precisions = sweep_loader(folder, precision, int(batch_size), channels_last == "yes", tags)
    print(json.dumps({"seconds": time.perf_counter() - begin, "precisions": precisions}))
