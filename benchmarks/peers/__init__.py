"""QMA-Net beside BenCo's own models, measured on this machine: see :mod:`.__main__`."""
