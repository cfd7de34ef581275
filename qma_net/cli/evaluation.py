"""``evaluate``, ``robust``, ``report``: numbers, and the pages made of them."""

import argparse

from .flags import listed


def add_commands(commands) -> None:
    """Adds this group's commands to the subparsers of ``qma-net``."""
    exact = commands.add_parser(
        "evaluate", help="exact metrics, per image and per test set", allow_abbrev=False
    )
    exact.set_defaults(run=_evaluate)
    sweep = commands.add_parser("robust", help="the same under attacks", allow_abbrev=False)
    sweep.add_argument("--attacks", default="", help="names, by comma (default: the paper's 18)")
    sweep.add_argument("--attack-file", help="YAML (default: benco_configs/robustness.yaml)")
    sweep.set_defaults(run=_robust)
    for command in (exact, sweep):
        command.epilog = "All other flags are the model's own, as in BenCo's scripts."
        command.add_argument("--checkpoint", nargs="+", required=True, metavar="PATH")
        command.add_argument("--test-sets", nargs="+", required=True, metavar="PATH")
        command.add_argument("--out", required=True, metavar="DIR")
        command.add_argument("--model", default="QMANet", help="its name in BenCo's registry")
        command.add_argument(
            "--image-size", type=int, default=0, help="side in pixels (default: as trained)"
        )
        fit = command.add_mutually_exclusive_group()
        fit.add_argument("--pad", action="store_true", help="pad instead of resizing")
        fit.add_argument("--native", action="store_true", help="every image at its own size")
        command.add_argument("--batch-size", type=int, default=4)
        command.add_argument("--workers", type=int, default=2, help="reading processes")
        command.add_argument(
            "--device", default="", help="cpu, cuda, cuda:1 (default: CUDA if any)"
        )
        command.add_argument("--save-masks", nargs="?", const="npy", choices=["npy", "png"])
        command.add_argument("--allow", default="", help="as in data check")

    pages = commands.add_parser("report", help="the paper's tables and figures, ours beside them")
    pages.add_argument("dirs", nargs="+", metavar="DIR", help="folders with result files")
    pages.add_argument("--out", required=True, metavar="FILE.html")
    pages.set_defaults(run=_report)


def _evaluate(args: argparse.Namespace) -> None:
    from ..evaluation.evaluate import evaluate

    evaluate(args.checkpoint, args.test_sets, args.out, **_evaluation(args))


def _robust(args: argparse.Namespace) -> None:
    from ..evaluation.attacks import read_attacks
    from ..evaluation.robust import robust

    attacks = read_attacks(args.attack_file, listed(args.attacks))
    robust(args.checkpoint, args.test_sets, args.out, attacks=attacks, **_evaluation(args))


def _report(args: argparse.Namespace) -> None:
    from ..report import report

    written = report(args.dirs, args.out)
    print(f"{written[-1]}, and {len(written) - 1} files in tables/ and figures/ beside it")


def _evaluation(args: argparse.Namespace) -> dict:
    import torch

    from ..evaluation.settings import Settings

    if args.device == "cpu" or not torch.cuda.is_available():
        from ..launch.cuda_to_cpu import redirect_cuda_to_cpu

        redirect_cuda_to_cpu()  # BenCo's other models name CUDA in their forward pass
    fit = "native" if args.native else "pad" if args.pad else ""
    return {
        "settings": Settings(fit=fit, image_size=args.image_size, batch_size=args.batch_size),
        "model": args.model,
        "model_flags": args.model_flags,
        "device": args.device,
        "workers": args.workers,
        "save_masks": args.save_masks or "",
        "allow": listed(args.allow),
    }
