"""Imports for the forkserver, so that its children start quickly; Ctrl-C is ignored meanwhile, not in the children."""

from __future__ import annotations

import signal

import embedcore.measure.executors  # noqa: F401

signal.signal(signal.SIGINT, signal.default_int_handler)
