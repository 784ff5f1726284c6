"""Imports for the forkserver, so that its children start quickly.

Ctrl-C is ignored during the imports, but not in the children.
"""

from __future__ import annotations

import signal

import embedcore.measure.executors  # noqa: F401

signal.signal(signal.SIGINT, signal.default_int_handler)
