"""Foundations shared by every package: errors, files, runs, images and worker processes."""
