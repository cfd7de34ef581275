"""Experiments with small models: what they learn from random weights, and which parts help."""
