"""The model zoo: roster, families, weights and backbones. The only room that imports timm."""
