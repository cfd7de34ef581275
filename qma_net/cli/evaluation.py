"""The commands for metrics and figures: ``evaluate``, ``robust``, ``report``, ``query-maps``."""

import argparse
from typing import Any

from ..weights.names import SMALL
from .flags import (
    ALLOWED_PROBLEMS,
    LOCAL_CHECKPOINT,
    Commands,
    add_checkpoint,
    add_command,
    add_device,
    add_threads,
    print_lines,
    split_names,
)


def add_commands(commands: Commands) -> None:
    """Add this group's commands to the parser of ``qma-net``."""
    evaluate = add_command(commands, "evaluate", _evaluate, allow_abbrev=False)
    robust = add_command(commands, "robust", _robust, allow_abbrev=False)
    add = robust.add_argument
    attacks = (
        "names of attacks, separated by commas (default: those of the paper; with --attack-file, "
        "those with `paper: true`, or all if there are none)"
    )
    add("--attacks", default="", metavar="A,B", help=attacks)
    attack_file = "YAML file that defines the attacks (default: benco_configs/robustness.yaml)"
    add("--attack-file", metavar="FILE", help=attack_file)
    for command in (evaluate, robust):
        command.epilog = "All other flags are passed to the model, as in BenCo's scripts."
        add = command.add_argument
        checkpoint = f"{LOCAL_CHECKPOINT}, or {SMALL}"
        add("--checkpoint", nargs="+", required=True, metavar="PATH", help=checkpoint)
        add(
            "--test-sets",
            nargs="+",
            required=True,
            metavar="PATH",
            help="folders with Tp/ (images) and Gt/ (masks), JSON lists of images, or a JSON "
            "file of named test sets",
        )
        add("--out", required=True, metavar="DIR", help="folder for the results")
        name = "name of the model in BenCo's registry (default: QMANet)"
        add("--model", default="QMANet", help=name)
        image_size = "resize or pad images to N x N pixels (default: as in training)"
        add("--image-size", type=int, default=0, metavar="N", help=image_size)
        fit = command.add_mutually_exclusive_group()
        fit.add_argument("--pad", action="store_true", help="pad images instead of resizing")
        fit.add_argument(
            "--native", action="store_true", help="evaluate images at original resolution"
        )
        resize = "resize images, regardless of how the model was trained"
        fit.add_argument("--resize", action="store_true", help=resize)
        border = (
            "exclude N pixels on both sides of the mask's boundary from the pixel-level metrics "
            "(default: 0)"
        )
        add("--ignore-border", type=int, default=0, metavar="N", help=border)
        add("--batch-size", type=int, default=4, metavar="N", help="images per batch (default: 4)")
        add(
            "--workers", type=int, default=2, metavar="N", help="data loader processes (default: 2)"
        )
        add_device(command)
        add_threads(command)
        add(
            "--save-masks",
            nargs="?",
            const="npy",
            choices=["npy", "png"],
            help="also save the predicted masks (default format: npy)",
        )
        add("--allow", default="", metavar="A,B", help=ALLOWED_PROBLEMS)

    add = add_command(commands, "report", _report).add_argument
    dirs = "folders with result files, including those in subfolders"
    add("dirs", nargs="+", metavar="DIR", help=dirs)
    add("--out", required=True, metavar="FILE.html", help="report to write")

    query_maps = add_command(commands, "query-maps", _query_maps)
    add = query_maps.add_argument
    add("photo", help="photo to process")
    add("--out", required=True, metavar="FILE.png", help="figure to write")
    add_checkpoint(query_maps)
    add("--native", action="store_true", help="process the photo at original resolution")
    add_device(query_maps)


def _evaluate(args: argparse.Namespace) -> None:
    """Compute metrics for every image and for each test set."""
    from ..evaluation.evaluate import evaluate

    evaluate(args.checkpoint, args.test_sets, args.out, **_evaluation_arguments(args))


def _robust(args: argparse.Namespace) -> None:
    """Evaluate robustness to blur, noise, JPEG compression and other attacks."""
    from ..evaluation.attacks import read_attacks
    from ..evaluation.robust import robust

    attacks = read_attacks(args.attack_file, split_names(args.attacks))
    robust(
        args.checkpoint, args.test_sets, args.out, attacks=attacks, **_evaluation_arguments(args)
    )


def _report(args: argparse.Namespace) -> None:
    """Write an HTML report that compares results with the paper's tables and figures."""
    from ..report import report

    written = report(args.dirs, args.out)
    print(f"{written[-1]}, and {len(written) - 1} files in tables/ and figures/ next to it")


def _query_maps(args: argparse.Namespace) -> None:
    """Visualize what each query of a model contributes to the mask of a photo, level by level."""
    from ..inference.predictor import load_predictor
    from ..report.figures.query_maps import write_query_maps

    predictor, note = load_predictor(args.checkpoint, args.device)
    figure = write_query_maps(predictor, args.photo, args.out, native=args.native)
    print_lines("\n".join(filter(None, [f"{args.out}: {figure.caption}", note])))


def _evaluation_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments that ``evaluate`` and ``robust`` have in common."""
    import torch

    from ..evaluation.settings import Settings

    on_cpu = args.device == "cpu" or not torch.cuda.is_available()
    if on_cpu and args.model != "QMANet":
        from ..launch.cuda_to_cpu import redirect_cuda_to_cpu

        redirect_cuda_to_cpu()  # Some of BenCo's models use CUDA in their forward pass.
    fits = {"native": args.native, "pad": args.pad, "resize": args.resize}
    settings = Settings(
        fit=next((fit for fit, is_set in fits.items() if is_set), ""),
        image_size=args.image_size,
        batch_size=args.batch_size,
        ignore_border=args.ignore_border,
    )
    return {
        "settings": settings,
        "model": args.model,
        "model_flags": args.model_flags,
        "device": args.device,
        "workers": args.workers,
        "save_masks": args.save_masks or "",
        "allow": split_names(args.allow),
    }
