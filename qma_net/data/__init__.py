"""Datasets in BenCo's formats."""
