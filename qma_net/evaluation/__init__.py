"""Exact numbers for any model of BenCo's registry, clean and under attack."""
