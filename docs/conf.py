"""Settings of Sphinx: ``sphinx-build -W docs build/docs``."""

import embedcore

project = "embedcore"
author = "the embedcore authors"
copyright = "the embedcore authors, Apache-2.0"
release = version = embedcore.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["build"]
html_theme = "furo"
html_title = f"embedcore {release}"

myst_heading_anchors = 3
default_role = "code"  # docstrings mark code with single backticks
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
suppress_warnings = ["myst.xref_missing"]  # files outside docs/, such as tests
