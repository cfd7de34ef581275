"""Metrics for any model in BenCo's registry, on clean and on attacked images."""
