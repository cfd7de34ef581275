"""The network: one file per module of the paper's Figure 2, composed in ``qma_net.py``."""
