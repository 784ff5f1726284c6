"""A small image set, and pixels which do to the measuring process what faults do."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from embedcore.images.dataset import load_dataset
from embedcore.images.geometry import geometry_of
from embedcore.images.pixel_store import open_pixel_store
from embedcore.measure.case import Case
from embedcore.measure.measure import Images
from embedcore.zoo.transforms import data_config

MODEL = "test_resnet.r160_in1k"

FAULTS = """
import os, signal, subprocess, sys, time
import numpy as np

class Fault:
    def __init__(self, shape):
        self.shape = shape
    def __len__(self):
        return self.shape[0]
    def read(self, start, stop):
        self.strike()
        return np.zeros((stop - start, *self.shape[1:]), dtype=np.uint8)

class Segfault(Fault):
    def strike(self):
        print("about to fall", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGSEGV)

class Killed(Fault):
    def strike(self):
        os.kill(os.getpid(), signal.SIGKILL)

class Exits(Fault):
    def strike(self):
        os._exit(7)

class Hangs(Fault):
    def strike(self):
        time.sleep(600)

class HangsWithChild(Fault):
    def __init__(self, shape, pid_file):
        super().__init__(shape)
        self.pid_file = pid_file
    def strike(self):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open(self.pid_file + ".part", "w") as file:
            file.write(str(child.pid))
        os.rename(self.pid_file + ".part", self.pid_file)
        time.sleep(600)

class Raises(Fault):
    def strike(self):
        raise KeyError("no such thing")

class Chatty(Fault):
    def strike(self):
        print("x" * 5_000_000)
        os.write(2, b"y" * 5_000_000)
"""


@pytest.fixture(scope="session")
def faults(tmp_path_factory):
    """The module of faulty pixels, importable here and in child processes."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "embedcore_faults.py").write_text(FAULTS)
    sys.path.insert(0, str(folder))
    import embedcore_faults

    yield embedcore_faults
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """Four classes of five images, each class a colour with noise."""
    folder = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for label, colour in enumerate([(200, 40, 40), (40, 200, 40), (40, 40, 200), (180, 180, 60)]):
        for number in range(5):
            pixels = np.clip(rng.normal(colour, 45, (48, 64, 3)), 0, 255).astype(np.uint8)
            path = folder / f"class{label}" / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path)
    return load_dataset(str(folder))


@pytest.fixture(scope="session")
def images(dataset, tmp_path_factory):
    geometry = geometry_of(data_config(MODEL), "native")
    return Images(dataset, open_pixel_store(dataset, geometry, tmp_path_factory.mktemp("cache")))


@pytest.fixture
def case():
    return Case(model=MODEL, family="resnet", weights="random", rounds=3)


@pytest.fixture
def shape(images):
    return images.pixels.shape
