from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.forkserver import TUNABLES, forkserver_context, settings_of_children, start_surely, tunables_with

names = st.sampled_from(["glibc.malloc.mmap_threshold", "glibc.malloc.arena_max", "glibc.cpu.hwcaps"])


def entries(tunables: str) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in tunables.split(":"))


@given(st.dictionaries(names, st.sampled_from(["1", "2-3"])))
def test_what_the_user_has_set_wins_and_ours_is_added(theirs):
    existing = ":".join(f"{key}={value}" for key, value in theirs.items())
    assert entries(tunables_with(existing)) == entries(TUNABLES) | theirs


def test_without_the_users_it_is_ours():
    assert entries(tunables_with(None)) == entries(TUNABLES)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_children_have_the_tunables_and_the_parent_has_not(tmp_path):
    # In an interpreter of its own: the forkserver of this one may have been started by another test.
    code = (
        "import os, sys\n"
        "from embedcore.forkserver import forkserver_context\n"
        "def send(sender):\n"
        "    sender.send((os.environ.get('GLIBC_TUNABLES'), os.environ.get('GOMP_SPINCOUNT'), "
        "'torch' in sys.modules and 'timm' in sys.modules))\n"
        "if __name__ == '__main__':\n"
        "    context = forkserver_context()\n"
        "    receiver, sender = context.Pipe(duplex=False)\n"
        "    child = context.Process(target=send, args=(sender,))\n"
        "    child.start()\n"
        "    sender.close()\n"
        "    print(*receiver.recv(), os.environ.get('GLIBC_TUNABLES'), os.environ.get('GOMP_SPINCOUNT'))\n"
        "    child.join()\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in settings_of_children({})}
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [TUNABLES, "10000", "True", "None", "None"]


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_who_has_said_how_threads_are_to_wait_is_heeded(name):
    assert settings_of_children({})["GOMP_SPINCOUNT"] == "10000"
    assert set(settings_of_children({name: "1"})) == {"GLIBC_TUNABLES"}


def test_context_is_a_forkserver():
    assert forkserver_context().get_start_method() == "forkserver"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into multiprocessing")
def test_ctrl_c_while_a_child_is_asked_for_leaves_the_forkserver_alive(monkeypatch):
    forkserver_context()
    server = forkserver._forkserver._forkserver_pid
    send = forkserver.reduction.sendfds
    started = []

    def interrupted_send(*arguments):
        signal.raise_signal(signal.SIGINT)  # connected, nothing sent: the forkserver is waiting for it
        send(*arguments)

    def start():
        process = forkserver_context().Process(target=time.sleep, args=(0,))
        process.start()
        started.append(process)

    monkeypatch.setattr(forkserver.reduction, "sendfds", interrupted_send)
    with pytest.raises(KeyboardInterrupt):
        start_surely(start)
    started[0].join(60)
    assert started[0].exitcode == 0  # 255 where the forkserver has died
    assert psutil.Process(server).status() != psutil.STATUS_ZOMBIE


def test_children_heed_ctrl_c():
    process = forkserver_context().Process(target=signal.raise_signal, args=(signal.SIGINT,))
    process.start()
    process.join(60)
    assert process.exitcode == 1  # of KeyboardInterrupt


@pytest.mark.skipif(sys.platform != "linux", reason="looks into multiprocessing")
def test_ctrl_c_while_the_forkserver_imports_goes_to_the_session_alone(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, time\n"
        "from embedcore.forkserver import forkserver_context\n"
        "if __name__ == '__main__':\n"
        "    context = forkserver_context()\n"
        "    time.sleep(0.3)\n"
        "    try:\n"
        "        os.killpg(0, signal.SIGINT)  # as a terminal does it\n"
        "        time.sleep(60)\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted')\n"
        "    child = context.Process(target=print, args=('started',))\n"
        "    child.start()\n"
        "    child.join()\n"
        "    print(child.exitcode)\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, timeout=120, start_new_session=True
    )
    assert (done.stdout.split(), done.stderr) == (["interrupted", "started", "0"], "")
