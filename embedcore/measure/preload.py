"""What the forkserver imports, which ignores Ctrl-C meanwhile: all that its children need. They heed it again."""

from __future__ import annotations

import signal

import embedcore.measure.executors  # noqa: F401

signal.signal(signal.SIGINT, signal.default_int_handler)
