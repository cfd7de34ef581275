"""Comparison of QMA-Net with BenCo's models on this machine; see :mod:`.__main__`."""
