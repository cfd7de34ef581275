"""The page of ``qma-net serve``: one photograph at a time, on this machine and nowhere else."""
