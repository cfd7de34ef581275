"""``python -m qma_net.launch`` as a file, which torchrun runs in forks of its own process."""

from qma_net.launch import main

main()
