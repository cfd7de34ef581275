"""The ``qma-net`` command: parse, call, print."""

import argparse
import sys

from . import __version__

# Which extra brings a module that only some commands need.
EXTRAS = {"IMDLBenCo": "benco", "albumentations": "benco", "matplotlib": "report"}


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``qma-net`` and ``python -m qma_net``."""
    argv = sys.argv[1:] if argv is None else argv
    from .launch import SCRIPTS
    from .launch import main as launch

    if argv and argv[0] in SCRIPTS:  # BenCo parses these itself
        launch(argv)
        return
    parser = _parser(SCRIPTS)
    args, args.model_flags = parser.parse_known_args(argv)
    if args.model_flags and not hasattr(args, "model"):
        parser.error(f"got {' '.join(args.model_flags)}, expected only the flags in --help")
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        sys.exit(f"qma-net: {error}")
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if not extra:
            raise
        sys.exit(
            f"qma-net: got no {error.name}, expected it installed: pip install 'qma-net[{extra}]'"
        )


def _parser(scripts) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qma-net",
        description="QMA-Net: find the manipulated pixels of a photograph.",
        epilog=f"IMDL-BenCo's own scripts, with --model QMANet: qma-net {{{','.join(scripts)}}} "
        "[their flags] [--cudnn]",
    )
    parser.add_argument("--version", action="version", version=f"qma-net {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    weights = commands.add_parser("weights", help="which weights, where published; check a file")
    weights.add_argument("files", nargs="*", help="weights to check")
    weights.set_defaults(run=_weights)

    predict = commands.add_parser("predict", help="masks and overlays of photographs")
    predict.add_argument("files", nargs="+", help="photographs, folders, patterns")
    predict.add_argument(
        "--checkpoint",
        required=True,
        help="of BenCo's trainer, a directory of save_pretrained, or a hub id; 'random' shows the "
        "mechanics with a model that knows nothing",
    )
    predict.add_argument("--out", required=True, metavar="DIR")
    predict.add_argument("--threshold", type=float, default=0.5)
    predict.add_argument("--native", action="store_true", help="at the photograph's own size")
    predict.add_argument("--tta", action="store_true", help="average over mirror images")
    predict.add_argument("--device", default="", help="cpu or cuda (default: CUDA if any)")
    predict.add_argument(
        "--mixed", action="store_true", help="bfloat16, for processors that have its arithmetic"
    )
    predict.add_argument(
        "--compile", action="store_true", help="for many photographs: half a minute, then faster"
    )
    predict.set_defaults(run=_predict)

    convert = commands.add_parser("convert", help="a checkpoint as a directory for the hub")
    convert.add_argument("checkpoint", help="of BenCo's trainer")
    convert.add_argument("--out", required=True, metavar="DIR")
    convert.set_defaults(run=_convert)

    export = commands.add_parser("export", help="the model for other runtimes, verified")
    export.add_argument("--checkpoint", required=True)
    export.add_argument("--format", default="onnx", choices=["onnx"])
    export.add_argument("--out", required=True, metavar="FILE")
    export.add_argument("--images", nargs="*", default=[], help="photographs to verify it on")
    export.set_defaults(run=_export)

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
        command.add_argument("--image-size", type=int, default=512)
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

    data = commands.add_parser("data", help="make datasets")
    data_commands = data.add_subparsers(required=True, metavar="command")
    check = data_commands.add_parser("check", help="is a dataset what BenCo takes it for?")
    check.add_argument("paths", nargs="+", help="Tp/Gt folders, lists, protocols, test sets")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.add_argument("--fast", action="store_true", help="headers and file sizes only")
    check.add_argument("--fix", metavar="DIR", help="write a copy with the lossless repairs")
    check.add_argument("--pad-to", type=int, default=0, help="--image_size, if training pads")
    check.add_argument("--allow", default="", help="problems that are right here, by comma")
    check.add_argument("--workers", type=int, help="processes (default: one per core)")
    check.set_defaults(run=_check)

    make = data_commands.add_parser("prepare", help="a published archive as BenCo reads it")
    make.add_argument("name", nargs="?", help="a dataset; without one, the table of facts")
    make.add_argument("--list", action="store_true", help="print the table of facts")
    make.add_argument("--source", metavar="DIR", help="the unpacked archive; only read")
    make.add_argument("--out", metavar="DIR", help="the dataset's own folder, for Tp/ and Gt/")
    make.add_argument("--max-side", type=int, default=0, help="reduce larger images (try 1024)")
    make.add_argument("--authentic", action="store_true", help="also Au/ and a list with them")
    make.add_argument("--repair", action="store_true", help="make masks of wrong size fit")
    make.add_argument("--link", action="store_true", help="hard links in place of copies")
    make.add_argument("--jpeg-quality", type=int, choices=(100, 90, 75), help="of AutoSplice")
    make.add_argument("--workers", type=int, help="processes (default: one per core)")
    make.set_defaults(run=_prepare)

    protocol = data_commands.add_parser("protocol", help="training and test JSONs for BenCo")
    protocol.add_argument("name", choices=("cat", "mvss"))
    protocol.add_argument("--root", required=True, help="folder of prepared datasets")
    protocol.add_argument("--out", metavar="DIR", help="where to write (default: --root)")
    protocol.set_defaults(run=_protocol)

    synth = data_commands.add_parser("synth", help="manipulated photographs out of your own")
    synth.add_argument("--photos", required=True, help="folder of untouched photographs")
    synth.add_argument("--out", required=True, help="folder for train/ and test/")
    synth.add_argument("--labels", help="folder of label maps (PNG, named like the photographs)")
    synth.add_argument("--count", type=int, default=1000, help="training images (default 1000)")
    synth.add_argument("--test-count", type=int, help="test images (default a tenth of --count)")
    synth.add_argument("--image-size", type=int, default=384, help="longest side (default 384)")
    synth.add_argument("--seed", type=int, default=0)
    synth.add_argument("--workers", type=int, help="processes (default: one per core)")
    synth.set_defaults(run=_synth)
    return parser


def _weights(args) -> None:
    from .weights import PUBLISHED, describe

    for file in args.files:
        print(describe(file))
    if args.files:
        return
    for item in PUBLISHED:
        print(f"{item.name}: {item.purpose}\n  published: {item.source}\n  terms: {item.terms}")
        if item.sha256:
            print(f"  SHA-256: {item.sha256}")


def _predict(args) -> None:
    from .predict import load_predictor, predict_files

    predictor, note = load_predictor(
        args.checkpoint, args.device, mixed=args.mixed, compile=args.compile
    )
    errors = predict_files(
        args.files, args.out, predictor, args.threshold, args.native, args.tta, note
    )
    for error in errors:
        print(f"qma-net: {error}", file=sys.stderr)
    print(f"{args.out}/predictions.csv")
    if errors:
        sys.exit(1)


def _convert(args) -> None:
    from .weights import load_checkpoint

    load_checkpoint(args.checkpoint).save_pretrained(args.out)
    print(f"{args.out}: config.json, model.safetensors, README.md (a model card to complete)")


def _export(args) -> None:
    from .export import export_onnx
    from .predictor import load_model

    print(export_onnx(load_model(args.checkpoint), args.out, args.images))


def _evaluate(args) -> None:
    from .evaluate import evaluate

    evaluate(args.checkpoint, args.test_sets, args.out, **_evaluation(args))


def _robust(args) -> None:
    from .robust import read_attacks, robust

    attacks = read_attacks(args.attack_file, _listed(args.attacks))
    robust(args.checkpoint, args.test_sets, args.out, attacks=attacks, **_evaluation(args))


def _report(args) -> None:
    from .report import report

    written = report(args.dirs, args.out)
    print(f"{written[-1]}, and {len(written) - 1} files in tables/ and figures/ beside it")


def _evaluation(args) -> dict:
    import torch

    from .evaluate import Settings

    if args.device == "cpu" or not torch.cuda.is_available():
        from .cpu import redirect_cuda_to_cpu

        redirect_cuda_to_cpu()  # BenCo's other models name CUDA in their forward pass
    fit = "native" if args.native else "pad" if args.pad else "resize"
    return {
        "settings": Settings(fit, args.image_size, args.batch_size),
        "model": args.model,
        "model_flags": args.model_flags,
        "device": args.device,
        "workers": args.workers,
        "save_masks": args.save_masks or "",
        "allow": _listed(args.allow),
    }


def _listed(names: str) -> list[str]:
    return [name for name in names.split(",") if name]


def _check(args) -> None:
    import json

    from .data.check import check
    from .data.repair import repair

    allow = _listed(args.allow)
    if args.fix:
        for line in repair(args.paths, args.fix, args.workers, allow):
            print(line, file=sys.stderr)
    report = check(args.paths, args.fast, args.workers, args.pad_to, allow)
    print(json.dumps(report.as_dict(), indent=1) if args.json else report.text())
    if report.errors:
        sys.exit(1)


def _prepare(args) -> None:
    from .data.prepare import facts, prepare

    if args.list or not args.name:
        print(facts())
        return
    if not args.source or not args.out:
        raise ValueError(f"got data prepare {args.name}, expected also --source DIR and --out DIR")
    flags = (args.max_side, args.authentic, args.repair, args.link, args.jpeg_quality)
    prepared = prepare(args.name, args.source, args.out, *flags, args.workers)
    print(prepared.text())
    if prepared.report["check"]["errors"]:
        sys.exit(1)


def _protocol(args) -> None:
    from .data.protocol import write_protocol

    written = write_protocol(args.name, args.root, args.out)
    print(written.text())
    if written.missing:
        sys.exit(1)


def _synth(args) -> None:
    from .data.synth import synthesise

    numbers = (args.count, args.test_count, args.image_size, args.seed)
    choices = {"labels": args.labels, "workers": args.workers}
    out = synthesise(args.photos, args.out, *numbers, **choices)
    print(f"{out}: train.json, test.json, manifest.jsonl")


if __name__ == "__main__":
    main()
