"""Run the command line: ``python -m qma_net``."""

from .cli import main

main()
