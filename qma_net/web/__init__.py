"""The page of ``qma-net serve``, which examines photos on this machine only."""
