"""Two sides, each an interpreter with its own timm or torch, measured in turn until their speed ratio is known."""
