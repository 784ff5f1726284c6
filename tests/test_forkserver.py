from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing import forkserver, process, util
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcore.forkserver import (
    TUNABLES,
    StartError,
    adopt_environment,
    child_environment,
    exit_words,
    forkserver_context,
    renew_forkserver,
    settings_of_children,
    start_surely,
    tunables_with,
)

names = st.sampled_from(["glibc.malloc.mmap_threshold", "glibc.malloc.arena_max", "glibc.cpu.hwcaps"])


def entries(tunables: str) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in tunables.split(":"))


@given(st.dictionaries(names, st.sampled_from(["1", "2-3"])))
def test_the_users_settings_take_precedence_over_ours(theirs):
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
def test_the_users_setting_of_waiting_threads_is_respected(name):
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
        signal.raise_signal(signal.SIGINT)  # connected, nothing sent: the forkserver waits for the request
        send(*arguments)

    def start():
        process = forkserver_context().Process(target=time.sleep, args=(0,))
        process.start()
        started.append(process)

    monkeypatch.setattr(forkserver.reduction, "sendfds", interrupted_send)
    with pytest.raises(KeyboardInterrupt):
        start_surely(start)
    started[0].join(60)
    assert started[0].exitcode == 0  # 255 if the forkserver has died
    assert psutil.Process(server).status() != psutil.STATUS_ZOMBIE


def test_children_react_to_ctrl_c():
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


LONGEST_OF_A_SOCKET = 107  # bytes of its path on Linux


@pytest.mark.parametrize(("length", "used_before"), [(70, False), (90, False), (90, True), (300, False)])
def test_a_long_path_of_temporary_files_is_no_obstacle(tmp_path, length, used_before):
    """The sockets of multiprocessing are in a short folder; everything else stays where TMPDIR says."""
    folder = tmp_path / ("t" * 200) / ("t" * 200)
    folder = Path(str(folder)[: max(length, len(str(tmp_path)) + 2)])
    folder.mkdir(parents=True)
    script = tmp_path / "script.py"
    script.write_text(
        "import os, tempfile\n"
        "from multiprocessing import util\n"
        "from multiprocessing.connection import Listener\n"
        "from embedcore.forkserver import PRELOAD, forkserver_context, start_surely\n"
        "PRELOAD.clear()  # importing torch takes seconds\n"
        "def listen():\n"
        "    Listener(family='AF_UNIX').close()  # a child may need a socket too\n"
        "    print(tempfile.gettempdir())\n"
        "def start():\n"
        "    child = forkserver_context().Process(target=listen)\n"
        "    child.start()\n"
        "    return child\n"
        "if __name__ == '__main__':\n"
        f"    {used_before} and util.get_temp_dir()\n"
        "    child = start_surely(start)\n"
        "    child.join()\n"
        "    print(child.exitcode, tempfile.gettempdir(), util.get_temp_dir())\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    *lines, sockets = done.stdout.split()
    assert lines == [str(folder), "0", str(folder)]
    assert len(f"{sockets}/listener-01234567") <= LONGEST_OF_A_SOCKET
    assert not Path(sockets).exists()  # removed with the process


def test_if_no_folder_is_short_enough_the_message_names_the_remedy(monkeypatch):
    folder = "/" + "t" * 90
    monkeypatch.setattr(tempfile, "tempdir", folder)
    monkeypatch.setitem(process.current_process()._config, "tempdir", folder)  # restored afterwards
    monkeypatch.setattr(util, "get_temp_dir", lambda: f"{folder}/pymp-01234567")
    with pytest.raises(
        StartError, match=rf"TMPDIR={folder} is too long .* set TMPDIR to a folder of at most 71 charact"
    ):
        start_surely(forkserver_context)
    assert tempfile.tempdir == folder


def test_children_get_the_current_environment(monkeypatch):
    monkeypatch.setenv("EMBEDCORE_GONE", "1")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    then = child_environment()
    assert then == {**os.environ, **settings_of_children(os.environ)} and then["GLIBC_TUNABLES"]
    monkeypatch.delenv("EMBEDCORE_GONE")
    monkeypatch.setenv("EMBEDCORE_NEW", "2")
    now = child_environment()
    before = dict(os.environ)
    try:
        adopt_environment(then)
        assert dict(os.environ) == then
        adopt_environment(now)
        assert dict(os.environ) == now and "EMBEDCORE_GONE" not in now
    finally:
        adopt_environment(before)


LEAVES_A_PROCESS = "import os, time; connection.send(os.fork() or time.sleep(600)); os._exit(0)"


def test_a_server_with_a_running_child_is_kept_but_what_children_leave_behind_is_no_obstacle():
    """Such a process, of a user's model for example, would keep the server alive, and so the session waiting."""
    context = forkserver_context()
    ours, theirs = context.Pipe()
    child = context.Process(target=exec, args=(LEAVES_A_PROCESS, {"connection": theirs}))
    child.start()
    left = ours.recv()
    child.join()
    running = context.Process(target=time.sleep, args=(600,))
    running.start()
    server = forkserver._forkserver._forkserver_pid
    renew_forkserver()
    assert psutil.pid_exists(server) and running.is_alive()
    running.kill()
    running.join()
    renew_forkserver()
    assert not psutil.pid_exists(server) and psutil.pid_exists(left)
    os.kill(left, signal.SIGKILL)


WHERE = "import ctypes, os; connection.send((os.getppid(), ctypes.addressof(ctypes.c_int()), id(exec)))"


def test_a_renewed_server_places_code_and_data_elsewhere():
    def found():
        context = forkserver_context()
        ours, theirs = context.Pipe()
        child = context.Process(target=exec, args=(WHERE, {"connection": theirs}))
        child.start()
        theirs.close()
        answer = ours.recv()
        child.join()
        return answer

    renew_forkserver()  # also if none runs
    first, second = found(), found()
    assert first == second, "the children of one server are alike"
    renew_forkserver()
    assert not set(first) & set(found())


def test_unknown_signal_and_code_in_words():
    assert exit_words(-6) == "was killed by SIGABRT"
    assert exit_words(0) == "ended with exit code 0"
    assert "signal 63" in exit_words(-63)
    assert exit_words(None) == "vanished"
