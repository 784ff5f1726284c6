from __future__ import annotations

import pytest
import torch
from torch import nn

from embedcore.errors import UnsupportedModel, UsageError
from embedcore.zoo.points import channels_first, point_forward, pool, prefix_tokens


class Tokens(nn.Module):
    """A model whose features are two prefix tokens of value 9, then 1, 2, 3."""

    num_classes = 4

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1))
        self.dist_token = nn.Parameter(torch.zeros(1))

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tensor([9.0, 9.0, 1.0, 2.0, 3.0]).reshape(1, 5, 1).expand(len(x), 5, 2)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return x[:, 0] if pre_logits else x[:, 0].repeat(1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))


class Maps(nn.Module):
    """An old kind of model: forward_head without the switch, channels last, a removable classifier."""

    num_features = 3
    output_fmt = "NHWC"

    def __init__(self) -> None:
        super().__init__()
        self.num_classes = 5

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return torch.arange(2 * 4 * 4 * 3.0).reshape(2, 4, 4, 3)

    def reset_classifier(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.forward_features(x).mean((1, 2))
        return pooled if self.num_classes == 0 else torch.zeros(len(x), self.num_classes)


PIXELS = torch.zeros(2, 3, 8, 8)


def test_points_of_a_token_model():
    module = Tokens()
    assert point_forward(module, "pre_logits", "m")(PIXELS).tolist() == [[9.0, 9.0]] * 2
    assert point_forward(module, "cls", "m")(PIXELS).tolist() == [[9.0, 9.0]] * 2
    assert pool(point_forward(module, "avg", "m")(PIXELS), module)[0].tolist() == [[2.0, 2.0]] * 2
    assert point_forward(module, "head", "m")(PIXELS).shape == (2, 4)


def test_points_of_a_map_model_without_the_pre_logits_switch():
    module = Maps()
    expected = module.forward_features(PIXELS).mean((1, 2))
    assert point_forward(module, "head", "m")(PIXELS).shape == (2, 5)
    pooled, averaged = pool(point_forward(module, "avg", "m")(PIXELS), module)
    assert torch.equal(pooled, expected) and averaged
    assert torch.equal(point_forward(module, "pre_logits", "m")(PIXELS), expected)


def test_missing_points_are_reported():
    with pytest.raises(UnsupportedModel, match="m: has no class token"):
        point_forward(Maps(), "cls", "m")
    headless = Tokens()
    headless.num_classes = 0
    with pytest.raises(UnsupportedModel, match="m: has no classifier or projection"):
        point_forward(headless, "head", "m")
    several = Tokens()
    several.forward_features = lambda x: [x, x]
    with pytest.raises(UnsupportedModel, match="m: returns a list instead of one tensor"):
        point_forward(several, "avg", "m")(PIXELS)
    prefix_only = Tokens()
    prefix_only.forward_features = lambda x: torch.zeros(2, 2, 4)
    with pytest.raises(UnsupportedModel, match="class tokens only"):
        point_forward(prefix_only, "avg", "m")(PIXELS)
    with pytest.raises(UsageError, match=r"unknown embedding point 'neck' \(points: pre_logits, avg, cls, head\)"):
        point_forward(Tokens(), "neck", "m")


def test_prefix_tokens_are_timms_count_where_it_has_one():
    module = Tokens()
    assert prefix_tokens(module) == 2
    module.num_prefix_tokens = 5
    assert prefix_tokens(module) == 5


def test_the_channel_axis_is_found():
    module = nn.Module()
    maps = torch.zeros(1, 7, 6, 5)
    assert channels_first(module, maps).shape == (1, 7, 6, 5)
    module.num_features = 5
    assert channels_first(module, maps).shape == (1, 5, 7, 6)
    module.num_features = 7
    assert channels_first(module, maps).shape == (1, 7, 6, 5)
    module.output_fmt = "NHWC"
    assert channels_first(module, maps).shape == (1, 5, 7, 6)
    assert channels_first(module, torch.zeros(2, 3)).shape == (2, 3)


def test_vectors_are_left_alone_and_positions_averaged():
    module = nn.Module()
    vectors = torch.randn(2, 3)
    assert pool(vectors, module) == (vectors, False)
    tokens = torch.randn(2, 4, 3)
    pooled, averaged = pool(tokens, module)
    assert averaged and torch.equal(pooled, tokens.mean(1))
    maps = torch.randn(2, 3, 4, 5)
    pooled, averaged = pool(maps, module)
    assert averaged
    torch.testing.assert_close(pooled, maps.mean((2, 3)))


def test_one_position_is_not_marked_as_an_average():
    pooled, averaged = pool(torch.ones(2, 3, 1, 1), nn.Module())
    assert pooled.shape == (2, 3) and not averaged


def test_an_encoder_without_a_head_gives_its_own_output():
    """As in timm's encoders of language models, whose forward_head only raises."""
    module = Tokens()
    module.num_classes = 0

    def no_head(x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        raise NotImplementedError

    module.forward_head = no_head
    module.forward = lambda x: module.forward_features(x)[:, 1:]
    assert point_forward(module, "pre_logits", "m")(PIXELS).shape == (2, 4, 2)
