"""Run ``qma-net`` with the models of :mod:`.models` in BenCo's registry.

python -m benchmarks.evidence.launch train --model SegFormerB0 ...

The environment variable ``EPOCH_IMAGES`` replaces the 1,840 images that BenCo draws from each
dataset in an epoch: checkpoints are written after an epoch, which may take too long otherwise.
"""

import os

from IMDLBenCo.datasets import BalancedDataset

from qma_net.cli import main

from . import models  # noqa: F401  (registers the models)

if os.environ.get("EPOCH_IMAGES"):
    # The defaults of ``path`` and ``sample_number``.
    BalancedDataset.__init__.__defaults__ = None, int(os.environ["EPOCH_IMAGES"])

if __name__ == "__main__":
    main()
