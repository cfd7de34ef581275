"""The paper's figures from result files, photographs and checkpoints; start at ``draw.py``."""
