"""QMA-Net's model and datasets for IMDL-BenCo, which are registered on import.

The import also prepares the process if one of the scripts that ``benco init`` copies is running;
see :mod:`.scripts`.
"""

from .datasets import NativeDataset, SynthDataset
from .model import QMANet
from .scripts import allow_benco_checkpoints, prepare_benco_script

__all__ = ["NativeDataset", "QMANet", "SynthDataset"]

allow_benco_checkpoints()
prepare_benco_script()
