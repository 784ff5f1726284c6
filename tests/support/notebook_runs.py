"""Synthetic runs of four models on 60 classes."""

from __future__ import annotations

import numpy as np
from synthetic_runs import as_run, hits_of, result, saved

CLASSES = np.repeat(np.arange(60), 8).astype(np.uint32)
ACCS = {"vit_good.a": 0.8, "vit_twin.a": 0.8, "resnet_fair.a": 0.6, "vgg_poor.a": 0.2}


def results(*models, seed=0, **changes):
    return [result(model, CLASSES, hits_of(model, CLASSES, ACCS[model], seed), **changes) for model in models or ACCS]


def run_of(*models, seed=0, name="run.json", excluded=None, settings=None, dataset=None, **changes):
    found = results(*models, seed=seed, **changes)
    return as_run(saved(found, CLASSES, excluded=excluded, settings=settings, dataset=dataset), name)
