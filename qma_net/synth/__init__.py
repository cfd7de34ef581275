"""Synthetic datasets of tampered images, created from authentic photos."""
