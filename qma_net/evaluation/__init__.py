"""Exact metrics for any model of BenCo's registry, on clean and on attacked images."""
