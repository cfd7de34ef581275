"""Run one of BenCo's scripts, unmodified, with QMA-Net registered.

Start the launcher with ``python -m qma_net.launch train --model QMANet ...``, with the same module
under ``torchrun -m``, or with ``qma-net train ...``. It keeps its own flags (:mod:`.flags`) and
passes all others to the script. :mod:`.contracts` lists the functions that it replaces, and when.
"""

import io
import logging
import os
import runpy
import sys
import traceback
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..core.errors import QMANetError
from ..core.runs import FolderLock
from ..core.threads import let_threads_sleep, limit_threads
from ..core.untrusted import one_line
from .checkpoints import accept_empty_amp_state, load_tensors_only, output_folder, save_atomically
from .console import StartupLog, configure_logging, log_own_warnings
from .contracts import CONTRACTS, MISC, replaces
from .flags import (
    check_model,
    complete_from_checkpoint,
    help_text,
    parse_own_flags,
    report_invalid_flags,
)
from .pretrained import hub_download, use_cache_only
from .torchrun import (
    LaunchError,
    exit_with_error,
    leave_process_group,
    rank,
    report_crashes,
    resuming_command,
    set_up_process,
)
from .training_hooks import TrainingHooks
from .waiting import WaitingRoom

logger = logging.getLogger(__name__)

SCRIPTS = ("train", "test", "test_robust", "test_save_images", "test_complexity")
BENCO_VERSION = "0.1.45"
BENCO_PYTHON = (3, 12)  # The newest Python with a build of numpy below 2, which BenCo needs.


def main(argv: list[str] | None = None) -> None:
    """Run one of BenCo's scripts in this process; exit with a one-line error if it cannot run.

    Args:
        argv: The script's name and all flags; ``sys.argv`` by default.
    """
    report_crashes()
    script, *flags = (sys.argv[1:] if argv is None else argv) or [""]
    try:
        with report_invalid_flags(script):
            _run(script, flags)
    except QMANetError as error:
        exit_with_error(error)
    except SystemExit as request:  # Such as a request to stop, which all processes obey.
        traceback.clear_frames(request.__traceback__)  # They refer to the model.
        leave_process_group()
        raise
    leave_process_group()  # Not after an error: it could wait for a process that has died.


def _run(script: str, given: list[str]) -> None:
    if script not in SCRIPTS:
        raise LaunchError(f"there is no script {script!r}; choose from {', '.join(SCRIPTS)}")
    own, flags = parse_own_flags(given, script)
    let_threads_sleep()
    limit_threads(own.threads)
    if own.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    configure_logging()
    _require_benco()
    is_help = bool({"-h", "--help"} & set(flags))
    is_training = script == "train" and not is_help
    startup = StartupLog(capture=is_training and rank() == 0)
    with ExitStack() as until_end:
        try:
            with _report_paths():
                with _silent_imports() if is_help else nullcontext():
                    flags = _prepare(script, own, flags)
                if is_help:
                    summary = f"Run BenCo's {script}.py, unmodified, with QMA-Net registered."
                    usage = f"usage: qma-net {script} --model MODEL [flags]"
                    sys.stdout.write(f"{usage}\n\n{summary}\n\n")
                    sys.stdout.write(f"{help_text(script)}\nBenCo's flags:\n\n")
                flags = complete_from_checkpoint(flags, fit=own.fit if is_training else "")
                if not is_help:
                    check_model(flags)
                if is_training:
                    command = resuming_command(script, given)
                    flags = _prepare_training(own, flags, command, startup, until_end)
                    hooks = TrainingHooks(own, startup, command)
                    until_end.callback(hooks.release)
                    hooks.install()
            sys.argv = [script, *flags]
            runpy.run_module(f"IMDLBenCo.training_scripts.{script}", run_name="__main__")
        except QMANetError:
            raise
        except Exception:
            startup.end(failed=True)
            raise
        finally:
            startup.end()


@contextmanager
def _report_paths() -> Iterator[None]:
    """Raise a :class:`LaunchError` for an error that concerns a path, such as a missing file.

    This is for the preparation. Errors of BenCo's scripts are shown with their traceback.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise  # It was raised by a library and does not concern a path.
        raise LaunchError(one_line(error)) from error


@contextmanager
def _silent_imports() -> Iterator[None]:
    """Hide what torch and BenCo print while they are imported, so that only the help is shown."""
    warnings.simplefilter("ignore")
    with redirect_stdout(io.StringIO()):
        yield


def _prepare(script: str, own: Namespace, flags: list[str]) -> list[str]:
    """Install the replacements that every script needs, and return the script's flags."""
    import torch

    from .. import benco  # noqa: F401  (registers QMANet)

    log_own_warnings()
    if own.device.startswith("cuda") and not torch.cuda.is_available():
        raise LaunchError(
            f"--device {own.device}: CUDA is not available; check nvidia-smi and "
            "torch.cuda.is_available(), or omit --device to run on the CPU"
        )
    device = own.device
    if not torch.cuda.is_available():
        from .cuda_to_cpu import redirect_cuda_to_cpu

        redirect_cuda_to_cpu()
        logger.info("running on the CPU: BenCo's CUDA calls are redirected")
        device = "cpu"
        if script == "train":  # AMP has no effect on the CPU, but BenCo would log that it is on.
            flags = [*flags, "--if_not_amp"]
    if device and script != "test_complexity":  # test_complexity has no --device.
        flags = [*flags, "--device", device]
    set_up_process(script)
    load_tensors_only()
    save_atomically()
    accept_empty_amp_state()
    limit_opencv_threads()
    if own.cudnn:
        keep_cudnn_on()
    return flags


def limit_opencv_threads() -> None:
    """Limit OpenCV to one thread in each worker process of BenCo's data loaders.

    There are ``--num_workers`` processes per GPU, and each would start a thread per core.
    """

    @replaces("torch.utils.data:DataLoader.__init__")
    def initialize(original: Callable, *args: Any, **options: Any) -> None:
        original(*args, **{"worker_init_fn": _use_one_opencv_thread, **options})


def _use_one_opencv_thread(worker: int) -> None:
    import cv2

    cv2.setNumThreads(1)


def keep_cudnn_on() -> None:
    """Turn cuDNN back on after BenCo's ``seed_torch`` has turned it off (``--cudnn``)."""
    import torch

    @replaces(f"{MISC}:seed_torch")
    def seed_torch(original: Callable, seed: int) -> None:
        original(seed)
        torch.backends.cudnn.enabled = True
        logger.info("cuDNN is on (--cudnn); BenCo's seed_torch had turned it off")


def _prepare_training(
    own: Namespace, flags: list[str], command: str, startup: StartupLog, until_end: ExitStack
) -> list[str]:
    """Check flags and data, lock the output folder for the run, and return train.py's flags."""
    from .preflight import (
        check_accumulation,
        check_data,
        check_flags,
        cleaned_lists,
        exclude_faulty_pairs,
    )

    if own.fit and not {"--if_resizing", "--if_padding"} & set(flags):
        flags = [*flags, "--if_padding"]  # Only test sets are padded; crops have the right size.
    sys.argv = ["train", *flags]  # Parse them as train.py does.
    script = runpy.run_module("IMDLBenCo.training_scripts.train", run_name="train")
    args: Namespace = script["get_args_parser"]()[0]
    check_flags(args, own, command)
    others = WaitingRoom()
    until_end.callback(others.close)
    # After a restart by torchrun with a checkpoint, an earlier attempt has checked the data.
    is_checked = args.resume and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if own.skip_bad:
        others.once("the data check", lambda: exclude_faulty_pairs(args, own.allow))
        train, test = map(str, cleaned_lists(args))
        flags = [*flags, "--data_path", train, "--test_data_path", test]
        check_accumulation(args, train)
    elif not own.no_data_check and not is_checked:
        others.once("the data check", lambda: startup.write(check_data(args, own.allow) + "\n"))
    if download := hub_download(flags):
        others.once_per_machine("the download of pretrained weights", download)
        use_cache_only()
    folder = output_folder(args)
    if folder and rank() == 0:
        try:
            until_end.enter_context(FolderLock(folder))
        except OSError as error:
            raise LaunchError(f"cannot write to --output_dir {folder}: {error}") from None
    startup.write_to(folder)
    return flags


def _require_benco() -> None:
    if _installed_version("imdlbenco13"):
        raise LaunchError(
            "the package imdlbenco13 is installed, whose augmentations and attacks are broken, "
            "instead of imdlbenco; run `pip uninstall imdlbenco13 imdlbenco`, then "
            "`pip install 'qma-net[benco]'`"
        )
    installed = _installed_version("imdlbenco")
    if not installed and (reason := benco_left_out()):
        raise LaunchError(reason)
    if not installed:
        raise LaunchError("IMDL-BenCo is not installed; run `pip install 'qma-net[benco]'`")
    if installed != BENCO_VERSION:
        logger.warning(
            "imdlbenco %s is installed; this launcher was tested with %s", installed, BENCO_VERSION
        )
        for contract in CONTRACTS.values():
            for violation in contract.violations():
                logger.warning("%s", violation)


def benco_left_out() -> str:
    """Return why the extra ``benco`` does not install IMDL-BenCo on this Python; "" if it does."""
    if sys.version_info[:2] <= BENCO_PYTHON:
        return ""
    python = ".".join(map(str, sys.version_info[:2]))
    return (
        f"Python {python} is too new for IMDL-BenCo {BENCO_VERSION}, which needs numpy below 2, so "
        "`pip install 'qma-net[benco]'` left it out; repeat that command in an environment with "
        "Python 3.11 or 3.12"
    )


def _installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
