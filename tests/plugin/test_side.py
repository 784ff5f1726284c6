from __future__ import annotations

import json

from embedcore.plugin import side
from embedcore.requirements import Distribution


def test_the_commit_is_that_of_a_timm_from_git(monkeypatch, tmp_path):
    origin = {"url": "https://host/timm", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}
    (tmp_path / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.setattr(side, "distributions", lambda: {"timm": Distribution("timm", "1.0", tmp_path)})
    assert side._commit() == "c0ffee"
    monkeypatch.setattr(side, "distributions", dict)  # timm is in a folder of PYTHONPATH
    assert side._commit() is None
