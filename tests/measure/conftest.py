"""A small image set, and pixels that cause faults in the measuring process."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import quick_sessions  # noqa: F401
from PIL import Image

from embedcore.images.geometry import geometry_of
from embedcore.images.load_dataset import load_dataset
from embedcore.images.pixel_store import open_pixel_store
from embedcore.measure.case import Case
from embedcore.measure.inputs import CaseInputs
from embedcore.measure.truth import GroundTruth
from embedcore.zoo.transforms import data_config

MODEL = "test_resnet.r160_in1k"

FAULTS = '''
"""Pixels which do to the measuring process what faults do, when they are first read."""

import ctypes, gc, itertools, os, signal, subprocess, sys, time
from multiprocessing.connection import Connection

import numpy as np


class Fault:
    def __init__(self, shape, pid_file=None):
        self.shape, self.pid_file = shape, pid_file

    def __len__(self):
        return self.shape[0]

    def read(self, start, stop):
        self.strike()
        return np.zeros((stop - start, *self.shape[1:]), dtype=np.uint8)

    def tell(self, pid):
        with open(self.pid_file + ".part", "w") as file:
            file.write(str(pid))
        os.rename(self.pid_file + ".part", self.pid_file)


def inbox():
    """The connection that leads to the session."""
    (found,) = [o for o in gc.get_objects() if isinstance(o, Connection) and not o.closed and o.writable]
    return found


class Segfault(Fault):
    def strike(self):
        print("about to fall", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGSEGV)

class TellsItsEnvironment(Fault):
    def strike(self):
        raise RuntimeError(f"set to {os.environ.get('EMBEDCORE_TEST')}")

class Killed(Fault):
    def strike(self):
        os.kill(os.getpid(), signal.SIGKILL)

class Large(Fault):
    def strike(self):
        self.hoard = np.ones(2**27, dtype=np.uint8)
        np.ones(2**28, dtype=np.uint8)
        os.kill(os.getpid(), signal.SIGKILL)

class Exits(Fault):
    def strike(self):
        os._exit(7)

class ExitsWithoutResult(Fault):
    def strike(self):
        os._exit(0)

class ExitsWhenUnpickled(Fault):
    def __setstate__(self, state):
        os._exit(7)

class Hangs(Fault):
    def strike(self):
        if self.pid_file:
            self.tell(os.getpid())
        time.sleep(600)

class HangsHoldingTheLock(Fault):
    """No thread of the process gets to run any Python."""
    def strike(self):
        self.tell(os.getpid())
        ctypes.PyDLL(None).sleep(600)

class HangsWithChild(Fault):
    def strike(self):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.tell(child.pid)
        time.sleep(600)

class LeavesChild(Fault):
    def strike(self):
        if not os.path.exists(self.pid_file):
            self.tell(subprocess.Popen(["sleep", "600"]).pid)

class LeavesDaemon(Fault):
    """A daemon as the books have it: forked twice, in a session of its own, without a parent."""
    def strike(self):
        if os.path.exists(self.pid_file):
            return
        child = os.fork()
        if child == 0:
            os.setsid()
            if os.fork() == 0:
                self.tell(os.getpid())
                time.sleep(600)
            os._exit(0)
        os.waitpid(child, 0)
        while not os.path.exists(self.pid_file):
            time.sleep(0.01)

class DiesWithDaemon(LeavesDaemon):
    def strike(self):
        super().strike()
        os.kill(os.getpid(), signal.SIGKILL)

class KillsItsGroup(Fault):
    def strike(self):
        os.killpg(0, signal.SIGTERM)

class KillsItsParent(Fault):
    def strike(self):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)

class StopsItsParent(Fault):
    def strike(self):
        self.tell(os.getpid())
        os.kill(os.getppid(), signal.SIGSTOP)
        time.sleep(600)

class ClosesItsPipe(Fault):
    def strike(self):
        inbox().close()
        time.sleep(600)

class Garbage(Fault):
    def strike(self):
        os.write(inbox().fileno(), bytes(range(256)) * 10)
        time.sleep(600)

class Nonsense(Fault):
    def strike(self):
        os.write(inbox().fileno(), b'{"result": {"model": 3}}' + bytes([10]))
        time.sleep(600)

class HalfAMessage(Fault):
    def strike(self):
        os.write(inbox().fileno(), b'{"result": {"model": "test_res')
        os._exit(3)

class HalfAMessageForEver(Fault):
    def strike(self):
        os.write(inbox().fileno(), b'{"result": {"model": "test_res')
        self.tell(os.getpid())
        time.sleep(600)

class Raises(Fault):
    def strike(self):
        raise KeyError("no such thing")

class Chatty(Fault):
    def strike(self):
        print("x" * 5_000_000)
        os.write(2, b"y" * 5_000_000)

class ChattyForEver(Fault):
    def strike(self):
        for number in itertools.count():
            os.write(1, b"all work and no play " * 5000 + bytes([10]))
            if number == 20:  # more than a pipe holds: the session has read some of it
                self.tell(os.getpid())

class NotANumber(Fault):
    def strike(self):
        import torch
        from embedcore.zoo.backbone import Backbone
        Backbone.embed = lambda self, x: torch.full((len(x), 8), torch.nan)

class ExhaustsMemory(Fault):
    def strike(self):
        hoard = []
        while True:
            hoard.append(np.ones(2**24, dtype=np.uint8))

class ThrowsBadAlloc(Fault):
    """What a C++ library does that does not expect to find no memory."""
    def strike(self):
        new = ctypes.CDLL("libstdc++.so.6")._Znwm
        new.argtypes = [ctypes.c_size_t]
        new(2**46)

class Hungry(Fault):
    """A model that needs 64 MB an image besides."""
    def strike(self):
        import torch
        from embedcore.zoo.backbone import Backbone
        if not hasattr(Backbone, "modest"):
            Backbone.modest = Backbone.embed
            Backbone.embed = lambda self, x: (torch.ones(len(x) * 2**24), self.modest(x))[1]

def session(case, images):
    """All that a session does, for a process of its own."""
    from embedcore.measure.executors import ChildExecutor
    ChildExecutor(timeout_s=300).run(case, images)

class CacheIn(Fault):
    """Pixels in whose process the hub's cache is this folder."""
    def strike(self):
        pass
    def __setstate__(self, state):
        from huggingface_hub import constants
        vars(self).update(state)
        constants.HF_HUB_CACHE = self.pid_file
        constants.HF_HUB_OFFLINE = False

class Slow(Fault):
    def strike(self):
        if self.pid_file and not os.path.exists(self.pid_file):
            self.tell(os.getpid())
            time.sleep(1.5)
'''


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(40)]


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
    return CaseInputs(GroundTruth.of(dataset), open_pixel_store(dataset, geometry, tmp_path_factory.mktemp("cache")))


@pytest.fixture
def case():
    return Case(model=MODEL, family="resnet", weights="random", rounds=2)


@pytest.fixture
def shape(images):
    return images.pixels.shape
