"""Run ``qma-net`` with the models of :mod:`.models` in BenCo's registry.

python -m benchmarks.evidence.launch train --model SegFormerB0 ...
"""

from qma_net.cli import main

from . import models  # noqa: F401  (registers the models)

if __name__ == "__main__":
    main()
