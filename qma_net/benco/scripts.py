"""Preparation of BenCo's own scripts, which ``benco init`` copies into a project.

The launcher does all this and more for the scripts that it runs. Here the user's copy of a script
runs by itself, and importing :mod:`qma_net.benco` is all that it does differently. The functions of
BenCo that this relies on are listed in ``qma_net/launch/contracts.py``.
"""

import argparse
import logging
import os
import sys

import torch

from ..core.single_process import set_up_single_process

logger = logging.getLogger(__name__)

CHECKPOINT_PATH = "--checkpoint_path"  # A flag of BenCo's test scripts.


def allow_benco_checkpoints() -> None:
    """Let ``torch.load`` read the ``argparse.Namespace`` in a checkpoint written by BenCo.

    From torch 2.6 on, ``--resume`` fails without this.
    """
    torch.serialization.add_safe_globals([argparse.Namespace])


def prepare_benco_script() -> None:
    """Let a copy of a BenCo script work without torchrun, if this process runs one.

    Call this while the script imports its model, which is before it reads its flags.
    """
    benco = sys.modules.get("IMDLBenCo.training_scripts.utils.misc")
    if benco is None or vars(sys.modules["__main__"]).get("misc") is not benco:
        return
    # Otherwise init_distributed_mode selects a mode in which train.py raises an UnboundLocalError
    # (global_rank) and the test scripts an AttributeError (module).
    set_up_single_process()
    sys.argv[:] = with_absolute_checkpoint_path(sys.argv)
    is_redirected = not torch.cuda.set_device.__module__.startswith("torch")
    if not is_redirected and not torch.cuda.is_available():
        # Logged, because BenCo's models switch off all warnings.
        logger.warning(
            "qma_net: CUDA is not available, but BenCo's scripts need it. To run this script on "
            "the CPU, begin it with these two lines:\n"
            "from qma_net.launch import redirect_cuda_to_cpu\nredirect_cuda_to_cpu()"
        )


def with_absolute_checkpoint_path(words: list[str]) -> list[str]:
    """Return a command line in which ``--checkpoint_path`` is absolute.

    The ``main`` function of test_save_images.py joins a relative path to itself.
    """
    words = list(words)
    for index, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag == CHECKPOINT_PATH and equals:
            words[index] = f"{flag}={os.path.abspath(value)}"
        elif flag == CHECKPOINT_PATH and index + 1 < len(words):
            words[index + 1] = os.path.abspath(words[index + 1])
    return words
