"""Benchmarks and experiments of QMA-Net; docs/benchmarks.md shows their results."""
