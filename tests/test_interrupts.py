"""Delayed Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from embedcore.interrupts import interrupts_held, interrupts_ignored, terminations_as_interrupts


def press():
    signal.raise_signal(signal.SIGINT)


def test_the_first_waits_until_the_end_of_the_block():
    done = False
    with pytest.raises(KeyboardInterrupt), interrupts_held():
        press()
        done = True
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_takes_effect_at_once_and_only_once():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_held():
        press()
        done.append(1)
        press()
        done.append(2)
    assert done == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_one_nothing_happens_and_an_error_is_passed_on():
    with interrupts_held():
        pass
    with pytest.raises(ZeroDivisionError), interrupts_held():
        1 / 0  # noqa: B018
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_thread_changes_nothing():
    handlers = []

    def work():
        with interrupts_held():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]


def test_children_ignore_what_is_ignored_and_we_do_not() -> None:
    asks = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    with interrupts_ignored():
        done = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_termination_is_an_interrupt_in_the_block_alone():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminations_as_interrupts():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    done = False
    with pytest.raises(KeyboardInterrupt), terminations_as_interrupts(), interrupts_held():
        signal.raise_signal(signal.SIGTERM)
        done = True
    assert done


def test_a_termination_is_an_interrupt_where_ctrl_c_is_ignored():
    with interrupts_ignored():
        with pytest.raises(KeyboardInterrupt), terminations_as_interrupts(), interrupts_held():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
