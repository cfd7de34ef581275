"""Synthetic datasets of manipulated images, created from authentic photos."""
