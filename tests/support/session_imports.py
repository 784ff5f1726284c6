"""Imports for the tests' forkserver: what a session in one of its children uses, besides torch and timm."""

import altair  # noqa: F401
import pytest  # noqa: F401
import quick_sessions  # noqa: F401
import scipy.special  # noqa: F401
import vl_convert  # noqa: F401
import xdist.remote  # noqa: F401

import embedcore.plugin.plugin
import embedcore.plugin.start
import embedcore.report.report_folder  # noqa: F401
