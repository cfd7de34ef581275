"""The report's figures, drawn from result files, images and checkpoints; see ``draw.py``."""
