"""Image-text retrieval with BridgeTower: index pictures, search them by text, fill in words."""

__version__ = "0.1.0"
