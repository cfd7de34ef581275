"""``weights``, ``predict``, ``convert``, ``export``: a model and its photographs."""

import argparse
import sys


def add_commands(commands) -> None:
    """Adds this group's commands to the subparsers of ``qma-net``."""
    weights = commands.add_parser("weights", help="which weights, where published; check a file")
    weights.add_argument("files", nargs="*", help="weights to check")
    weights.set_defaults(run=_weights)

    predict = commands.add_parser("predict", help="masks and overlays of photographs")
    predict.add_argument("files", nargs="+", help="photographs, folders, patterns")
    predict.add_argument(
        "--checkpoint",
        required=True,
        help="of BenCo's trainer or a folder of them (the newest), a directory of save_pretrained, "
        "or a hub id; 'random' shows the mechanics with a model that knows nothing",
    )
    predict.add_argument("--out", required=True, metavar="DIR")
    predict.add_argument(
        "--threshold", type=float, default=0.5, help="marked above it, 0 to 1 (default 0.5)"
    )
    predict.add_argument(
        "--image-size", type=int, help="resize to this side (default: as the model was trained)"
    )
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


def _weights(args: argparse.Namespace) -> None:
    from ..weights.describe import describe
    from ..weights.sources import PUBLISHED

    for file in args.files:
        print(describe(file))
    if args.files:
        return
    for item in PUBLISHED:
        print(f"{item.name}: {item.purpose}\n  published: {item.source}\n  terms: {item.terms}")
        if item.sha256:
            print(f"  SHA-256: {item.sha256}")


def _predict(args: argparse.Namespace) -> None:
    from ..inference.predict import SCORE, load_predictor, predict_files

    predictor, note = load_predictor(
        args.checkpoint,
        args.device,
        image_size=args.image_size,
        mixed=args.mixed,
        compile=args.compile,
    )
    shown = "at their own size" if args.native else predictor.preprocessing
    print(f"qma-net: photographs {shown}", *predictor.notes, sep="; ", file=sys.stderr)
    errors = predict_files(
        args.files,
        args.out,
        predictor,
        threshold=args.threshold,
        native=args.native,
        tta=args.tta,
        note=note,
    )
    for error in errors:
        print(f"qma-net: {error}", file=sys.stderr)
    print(SCORE, file=sys.stderr)
    print(f"{args.out}/predictions.csv")
    if errors:
        sys.exit(1)


def _convert(args: argparse.Namespace) -> None:
    from ..weights.locate import load_model

    load_model(args.checkpoint).save_pretrained(args.out)
    print(f"{args.out}: config.json, model.safetensors, README.md (a model card to complete)")


def _export(args: argparse.Namespace) -> None:
    from ..inference.export import export_onnx
    from ..weights.locate import load_model

    print(export_onnx(load_model(args.checkpoint), args.out, args.images))
