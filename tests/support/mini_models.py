"""timm's models for tests that take a fraction of a second."""

from embedcore.zoo.tags import all_tags

_SLOW = {"test_convnext", "test_efficientnet_evos", "test_nfnet", "test_vit2"}

MINI = [tag for tag in all_tags() if tag.startswith("test_") and tag.partition(".")[0] not in _SLOW]
