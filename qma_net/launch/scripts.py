"""BenCo's own scripts, unmodified, with QMA-Net registered.

``python -m qma_net.launch train --model QMANet ...``, the same under ``torchrun -m``, and
``qma-net train ...``. Every flag goes to the script but ``--cudnn``, ``--save_period`` (and
``--device``, for test_complexity, which has none). What happens around the script, and when:

- always: ``qma_net.benco`` is imported; ``torch.load`` reads tensors and BenCo's Namespace only;
  checkpoints are written beside and renamed; every epoch is seeded by (seed, rank, epoch); an
  accumulation longer than the loader is refused; a relative ``--checkpoint_path`` is made
  absolute, and a model's flags that are not given are read from the checkpoint it names;
- without torchrun: the environment of a single process is set;
- with ``--save_period N``: train also saves every N epochs (BenCo alone: every 25); the epoch that
  is best on training's test sets is copied to ``best/`` (:mod:`qma_net.launch.training`);
- with ``--cudnn``: cuDNN is turned back on after BenCo's ``seed_torch`` turned it off;
- without CUDA, or with ``--device cpu``: see :mod:`qma_net.launch.cuda_to_cpu`.
"""

import os
import runpy
import sys
from importlib.metadata import PackageNotFoundError, version

from ..errors import QMANetError
from .flags import complete_from_checkpoint, own_flags
from .patches import keep_cudnn_on, load_tensors_only, save_atomically
from .process import LaunchError, say, set_single_process_environment
from .training import Training

SCRIPTS = ("train", "test", "test_robust", "test_save_images", "test_complexity")
BENCO_VERSION = "0.1.45"


def main(argv: list[str] | None = None) -> None:
    """Runs one of BenCo's scripts in this process; what it refuses ends it with one line."""
    try:
        run(argv)
    except QMANetError as error:
        sys.exit(f"qma-net: {error}")


def run(argv: list[str] | None = None) -> None:
    """Runs one of BenCo's scripts in this process; does not return where the script exits.

    Raises:
        LaunchError, ConfigError, WeightsError: in one line each.
    """
    script, *flags = (sys.argv[1:] if argv is None else argv) or [""]
    if script not in SCRIPTS:
        raise LaunchError(f"got {script!r}, expected one of {', '.join(SCRIPTS)}")
    own, flags = own_flags(flags)
    if own.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    _require_benco()

    import torch

    from .. import benco  # noqa: F401  (registers QMANet)

    if not torch.cuda.is_available():
        from .cuda_to_cpu import redirect_cuda_to_cpu

        redirect_cuda_to_cpu()
        say("no CUDA, or --device cpu: BenCo's CUDA calls go to the CPU (qma_net.launch)")
        if script != "test_complexity":
            flags += ["--device", "cpu"]
    elif own.device and script != "test_complexity":
        flags += ["--device", own.device]
    set_single_process_environment(script)
    load_tensors_only()
    save_atomically()
    if script == "train":
        Training(own.save_period).wrap()
    if own.cudnn:
        keep_cudnn_on()
    if {"-h", "--help"} & set(flags):
        say(f"BenCo's flags follow; beside them: --cudnn, --save_period N, {_model_flags()}")
    try:
        flags = complete_from_checkpoint(flags)
        sys.argv = [script, *flags]
        runpy.run_module(f"IMDLBenCo.training_scripts.{script}", run_name="__main__")
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _model_flags() -> str:
    from inspect import signature

    from ..benco import QMANet

    return ", ".join(f"--{name}" for name in signature(QMANet).parameters)


def _require_benco() -> None:
    try:
        found = version("imdlbenco")
    except PackageNotFoundError:
        raise LaunchError(
            "IMDL-BenCo is not installed, and its scripts are what this runs: "
            "pip install 'qma-net[benco]'"
        ) from None
    if found != BENCO_VERSION:
        say(f"imdlbenco {found} is installed; this launcher was tested with {BENCO_VERSION}")
