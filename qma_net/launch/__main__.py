"""Entry point of ``python -m qma_net.launch``."""

from . import main

main()
