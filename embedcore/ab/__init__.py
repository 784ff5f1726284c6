"""``embedcore ab``: compare two sides, each an environment with its own timm or torch, by interleaved measurements."""
