"""BenCo's own scripts, unmodified, with QMA-Net registered.

``python -m qma_net.launch train --model QMANet ...``, the same under ``torchrun -m``, and
``qma-net train ...``. Every flag goes to the script but ``--cudnn``, ``--save_period`` (and
``--device``, for test_complexity, which has none). What happens around the script, and when:

- always: ``qma_net.benco`` is imported; ``torch.load`` reads tensors and BenCo's Namespace only;
  checkpoints are written beside and renamed; every epoch is seeded by (seed, rank, epoch); an
  accumulation longer than the loader is refused; a relative ``--checkpoint_path`` is made
  absolute, and a model's flags that are not given are read from the checkpoint it names;
- without torchrun: the environment of a single process is set;
- with ``--save_period N``: train also saves every N epochs (BenCo alone: every 25);
- with ``--cudnn``: cuDNN is turned back on after BenCo's ``seed_torch`` turned it off;
- without CUDA, or with ``--device cpu``: see :mod:`qma_net.cpu`.
"""

import argparse
import functools
import os
import random
import re
import runpy
import socket
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .files import written_beside

SCRIPTS = ("train", "test", "test_robust", "test_save_images", "test_complexity")
BENCO_VERSION = "0.1.45"


class LaunchError(SystemExit):
    """Ends the process with one line that says got, expected, remedy."""

    def __init__(self, message: str):
        super().__init__(f"qma-net: {message}")


def main(argv: list[str] | None = None) -> None:
    """Runs one of BenCo's scripts in this process; does not return where the script exits."""
    script, *flags = (sys.argv[1:] if argv is None else argv) or [""]
    if script not in SCRIPTS:
        raise LaunchError(f"got {script!r}, expected one of {', '.join(SCRIPTS)}")
    own, flags = _own_flags(flags)
    if own.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    _require_benco()

    import torch

    from . import benco  # noqa: F401  (registers QMANet)
    from .build import ConfigError
    from .weights import WeightsError

    if not torch.cuda.is_available():
        from .cpu import redirect_cuda_to_cpu

        redirect_cuda_to_cpu()
        _say("no CUDA, or --device cpu: BenCo's CUDA calls go to the CPU (qma_net.cpu)")
        if script != "test_complexity":
            flags += ["--device", "cpu"]
    elif own.device and script != "test_complexity":
        flags += ["--device", own.device]
    _set_single_process_environment(script)
    _load_tensors_only()
    _save_atomically()
    if script == "train":
        _guard_training(own.save_period)
    if own.cudnn:
        _keep_cudnn_on()
    if {"-h", "--help"} & set(flags):
        _say(f"BenCo's flags follow; beside them: --cudnn, --save_period N, {_model_flags()}")
    try:
        flags = _complete_from_checkpoint(flags)
        sys.argv = [script, *flags]
        runpy.run_module(f"IMDLBenCo.training_scripts.{script}", run_name="__main__")
    except (ConfigError, WeightsError) as error:
        raise LaunchError(str(error)) from error
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _own_flags(flags: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--device", default="")
    parser.add_argument("--cudnn", action="store_true")
    parser.add_argument("--save_period", type=int, default=0)
    return parser.parse_known_args(flags)


def _model_flags() -> str:
    from inspect import signature

    from .benco import QMANet

    return ", ".join(f"--{name}" for name in signature(QMANet).parameters)


def _say(message: str) -> None:
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"[qma-net] {message}", flush=True)


def _require_benco() -> None:
    try:
        found = version("imdlbenco")
    except PackageNotFoundError:
        raise LaunchError(
            "IMDL-BenCo is not installed, and its scripts are what this runs: "
            "pip install 'qma-net[benco]'"
        ) from None
    if found != BENCO_VERSION:
        _say(f"imdlbenco {found} is installed; this launcher was tested with {BENCO_VERSION}")


def _set_single_process_environment(script: str) -> None:
    """BenCo's scripts assume torchrun; without it they break on ``model.module``."""
    world = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", 1)))
    if script == "test_complexity" and world > 1:
        raise LaunchError(
            f"got {world} processes, expected one: test_complexity is not distributed, "
            "start it without torchrun"
        )
    if "RANK" in os.environ or "SLURM_PROCID" in os.environ or "OMPI_COMM_WORLD_RANK" in os.environ:
        return
    single = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    os.environ.update(single, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _load_tensors_only() -> None:
    """``--resume`` meets a Namespace that torch refuses; test.py asks for no check at all."""
    import torch

    load = torch.load

    @functools.wraps(load)
    def load_weights_only(*args, **kwargs):
        with torch.serialization.safe_globals([argparse.Namespace]):
            return load(*args, **{**kwargs, "weights_only": True})

    torch.load = load_weights_only


def _save_atomically() -> None:
    """A run killed while saving must not leave half a checkpoint under a checkpoint's name."""
    import IMDLBenCo.training_scripts.utils.misc as misc
    import torch

    def save_on_master(content, path):
        if misc.is_main_process():
            with written_beside(path) as beside:
                torch.save(content, beside)

    misc.save_on_master = save_on_master


def _guard_training(save_period: int) -> None:
    """Around BenCo's ``train_one_epoch``: a check, seeds that a resume repeats, more saving."""
    import IMDLBenCo.training_scripts.trainer as trainer
    import IMDLBenCo.training_scripts.utils.misc as misc
    import numpy
    import torch

    train_one_epoch = trainer.train_one_epoch

    @functools.wraps(train_one_epoch)
    def guarded(model, data_loader, optimizer, device, epoch, loss_scaler, *, args, **kwargs):
        if len(data_loader) < args.accum_iter:
            raise LaunchError(
                f"got --accum_iter {args.accum_iter} with {len(data_loader)} batches per process "
                "and epoch, expected no more than there are batches: BenCo would never take an "
                "optimiser step; lower --accum_iter (or --batch_size)"
            )
        rank = int(os.environ.get("RANK", 0))
        state = numpy.random.SeedSequence((args.seed, rank, epoch)).generate_state(1)[0]
        random.seed(int(state))
        numpy.random.seed(state)
        torch.manual_seed(int(state))
        stats = train_one_epoch(
            model, data_loader, optimizer, device, epoch, loss_scaler, args=args, **kwargs
        )
        if save_period and (epoch + 1) % save_period == 0:
            misc.save_model(args, epoch, model, model.module, optimizer, loss_scaler)
        return stats

    trainer.train_one_epoch = guarded


def _keep_cudnn_on() -> None:
    import IMDLBenCo.training_scripts.utils.misc as misc
    import torch

    seed_torch = misc.seed_torch

    @functools.wraps(seed_torch)
    def seed_and_keep_cudnn(seed):
        seed_torch(seed)
        torch.backends.cudnn.enabled = True
        _say("--cudnn: cuDNN is on (BenCo's seed_torch had turned it off)")

    misc.seed_torch = seed_and_keep_cudnn


def _complete_from_checkpoint(flags: list[str]) -> list[str]:
    """Adds the model flags that a named checkpoint knows and the command line leaves out."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("model", "checkpoint_path", "resume", "init_from"):
        parser.add_argument(f"--{name}", default="")
    given, rest = parser.parse_known_args(flags)
    if given.checkpoint_path:
        rest += ["--checkpoint_path", os.path.abspath(given.checkpoint_path)]
    for name in ("model", "resume", "init_from"):
        if getattr(given, name):
            rest += [f"--{name}", getattr(given, name)]
    source = given.checkpoint_path or given.resume or given.init_from
    if given.model != "QMANet" or not source:
        return rest

    from .weights import checkpoint_config

    checkpoint = _newest_checkpoint(source)
    known = checkpoint_config(checkpoint).as_flags()
    named = {flag.split("=")[0] for flag in rest}
    for flag, value in zip(known[::2], known[1::2], strict=True):
        if flag not in named:
            rest += [flag, value]
    if not given.init_from and not {"--noiseprint_weights", "--backbone_weights"} & named:
        rest += ["--init_from", str(checkpoint)]
    _say(f"model flags from {checkpoint}: {' '.join(known)}")
    return rest


def _newest_checkpoint(path: str) -> Path:
    """The checkpoint a path names: itself, or the newest ``checkpoint-<epoch>.pth`` in a folder."""
    path = Path(path)
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.pth"))
    strange = [file.name for file in files if not re.fullmatch(r"checkpoint-\d+\.pth", file.name)]
    if strange or not files:
        found = f"{strange[0]} among the .pth files" if strange else "no .pth file"
        raise LaunchError(
            f"got {found} of {path}, expected only checkpoint-<epoch>.pth: BenCo's test.py "
            "reads every .pth file there as one"
        )
    return max(files, key=lambda file: int(file.stem.split("-")[1]))


if __name__ == "__main__":
    main()
