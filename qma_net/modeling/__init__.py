"""The network, one role of the paper's Figure 2 to a file; `qma_net.py` composes it."""
