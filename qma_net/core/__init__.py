"""Foundations shared by every package: errors, files, resumable runs, images and workers."""
