"""BenCo's own scripts, unmodified, with QMA-Net registered.

``python -m qma_net.launch train --model QMANet ...``, the same under ``torchrun -m``, and
``qma-net train ...``. Every flag goes to the script but the launcher's own (:mod:`.flags`). What
happens around the script, and when:

- always: ``qma_net.benco`` is imported; ``torch.load`` reads tensors and BenCo's Namespace only;
  a relative ``--checkpoint_path`` is made absolute, and a model's flags that are not given are
  read from the checkpoint it names;
- without torchrun: the environment of a single process is set;
- restarted by torchrun (``--max-restarts``): each attempt has its own part of torchrun's store;
- with ``--cudnn``: cuDNN is turned back on after BenCo's ``seed_torch`` turned it off;
- without CUDA, or with ``--device cpu``: see :mod:`.cuda_to_cpu`.

Around train, besides:

- before the start: ``--resume auto`` becomes the newest whole checkpoint; flags that BenCo would
  end at with a traceback, a folder with another run's checkpoints, and faulty data are refused
  (:mod:`.before`); what is printed goes to ``startup.txt`` (:mod:`.startup`);
- from then on ``--output_dir`` is held against another training (:func:`qma_net.core.files.hold`);
- ``load_model``: an epoch that was saved and not logged is tested first (:mod:`.training`); an AMP
  scaler of a CPU is taken on a GPU (:mod:`.patches`);
- ``train_one_epoch``: every epoch is seeded by (seed, rank, epoch); an accumulation longer than
  the loader is refused; an unreadable image is replaced (:mod:`.unreadable`); ``--save_period``;
- the loss scaler: a step that is not finite is left out; ``--clip_grad`` (:mod:`.finite`);
- ``MetricLogger.log_every``: after a step, signals and the file STOP are heeded (:mod:`.stopping`);
- ``save_model``: checkpoints are written beside and renamed, old ones deleted; ``test_one_epoch``:
  the epoch that is best on training's test sets is copied to ``best/`` (:mod:`.saving`).
"""

import argparse
import os
import runpy
import sys
from importlib.metadata import PackageNotFoundError, version

from ..core.errors import QMANetError
from ..core.files import hold
from .before import check_data, require_consistent, skip_bad
from .flags import complete_from_checkpoint, help_text, own_flags
from .patches import keep_cudnn_on, load_tensors_only, number_the_attempts, take_empty_scalers
from .process import (
    LaunchError,
    rank,
    refuse,
    resuming_command,
    say,
    set_single_process_environment,
)
from .saving import output_folder, save_atomically
from .startup import Startup
from .training import Training

SCRIPTS = ("train", "test", "test_robust", "test_save_images", "test_complexity")
BENCO_VERSION = "0.1.45"
BENCO_PYTHON = (3, 12)  # the newest Python that it installs on: it needs numpy below 2


def main(argv: list[str] | None = None) -> None:
    """Runs one of BenCo's scripts in this process; what it refuses ends it with one line."""
    try:
        run(argv)
    except QMANetError as error:
        refuse(error)


def run(argv: list[str] | None = None) -> None:
    """Runs one of BenCo's scripts in this process; does not return where the script exits.

    Raises:
        LaunchError, ConfigError, WeightsError: in one line each.
    """
    script, *given = (sys.argv[1:] if argv is None else argv) or [""]
    if script not in SCRIPTS:
        raise LaunchError(f"got {script!r}, expected one of {', '.join(SCRIPTS)}")
    own, flags = own_flags(given)
    if own.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    _require_benco()
    asks_help = bool({"-h", "--help"} & set(flags))
    startup = Startup()
    if script == "train" and not asks_help:
        startup.begin()
    try:
        flags = _prepare(script, own, flags)
        if asks_help:
            print(f"{help_text()}\nBenCo's flags:\n")
        flags = complete_from_checkpoint(flags)
        if script == "train" and not asks_help:
            command = resuming_command(script, given)
            flags = _refuse_or_clean(own, flags, command, startup)
            Training(own, startup, command).wrap()
        sys.argv = [script, *flags]
        runpy.run_module(f"IMDLBenCo.training_scripts.{script}", run_name="__main__")
    except QMANetError:
        startup.end()
        raise
    except Exception:
        startup.fail()
        raise
    finally:
        startup.end()
        _leave_the_group()


def _prepare(script: str, own: argparse.Namespace, flags: list[str]) -> list[str]:
    """What every script needs around it; returns its flags."""
    import torch

    from .. import benco  # noqa: F401  (registers QMANet)

    if own.device.startswith("cuda") and not torch.cuda.is_available():
        raise LaunchError(
            f"got --device {own.device} and no CUDA device, expected one: see that nvidia-smi and "
            "torch.cuda.is_available() find it, or leave --device out to run on the CPU"
        )
    if not torch.cuda.is_available():
        from .cuda_to_cpu import redirect_cuda_to_cpu

        redirect_cuda_to_cpu()
        say("no CUDA, or --device cpu: BenCo's CUDA calls go to the CPU (qma_net.launch)")
        if script != "test_complexity":
            flags = [*flags, "--device", "cpu"]
    elif own.device and script != "test_complexity":
        flags = [*flags, "--device", own.device]
    set_single_process_environment(script)
    number_the_attempts()
    load_tensors_only()
    save_atomically()
    take_empty_scalers()
    if own.cudnn:
        keep_cudnn_on()
    return flags


def _refuse_or_clean(
    own: argparse.Namespace, flags: list[str], command: str, startup: Startup
) -> list[str]:
    """What :mod:`.before` says of a training, before BenCo makes its output folder."""
    if own.fit and not {"--if_resizing", "--if_padding"} & set(flags):
        flags = [*flags, "--if_padding"]  # of the test sets; crops are as large already
    args = _benco_args(flags)
    require_consistent(args, command, fit=own.fit)
    # Where torchrun starts it anew and there is a checkpoint, an earlier attempt has checked them.
    checked = args.resume and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if own.skip_bad:
        for flag, path in skip_bad(args, own.allow).items():
            flags = [*flags, flag, path]
    elif rank() == 0 and not own.no_data_check and not checked:
        check_data(args, own.allow)
    folder = output_folder(args)
    if folder and rank() == 0:
        try:
            hold(folder)
        except OSError as error:
            raise LaunchError(
                f"got --output_dir {folder}, expected a folder that can be written to: {error}"
            ) from None
    startup.write_to(folder)
    return flags


def _benco_args(flags: list[str]) -> argparse.Namespace:
    """The flags of train.py as its own parser reads them."""
    sys.argv = ["train", *flags]
    script = runpy.run_module("IMDLBenCo.training_scripts.train", run_name="train")
    return script["get_args_parser"]()[0]


def _leave_the_group() -> None:
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _require_benco() -> None:
    try:
        version("imdlbenco13")
    except PackageNotFoundError:
        pass
    else:
        raise LaunchError(
            "got imdlbenco13, another package under BenCo's name whose augmentations and attacks "
            "do not work, expected imdlbenco: pip uninstall imdlbenco13 imdlbenco, then "
            "pip install 'qma-net[benco]'"
        )
    try:
        found = version("imdlbenco")
    except PackageNotFoundError:
        if sys.version_info[:2] > BENCO_PYTHON:
            python = ".".join(map(str, sys.version_info[:2]))
            raise LaunchError(
                f"got Python {python} without IMDL-BenCo, expected Python 3.11 or 3.12: "
                f"IMDL-BenCo {BENCO_VERSION} needs numpy below 2, which is not built for newer "
                "ones; make an environment with one of the two and pip install 'qma-net[benco]'"
            ) from None
        raise LaunchError(
            "IMDL-BenCo is not installed, and its scripts are what this runs: "
            "pip install 'qma-net[benco]'"
        ) from None
    if found != BENCO_VERSION:
        say(f"imdlbenco {found} is installed; this launcher was tested with {BENCO_VERSION}")
