"""BenCo's own scripts, unmodified, with QMA-Net registered: see :mod:`.scripts`."""

from .scripts import BENCO_VERSION, SCRIPTS, main

__all__ = ["BENCO_VERSION", "SCRIPTS", "main"]
