"""The command line itself: help texts, mistyped flags, deprecated spellings, logging."""

import argparse
import inspect
import logging
import subprocess
import sys

import pytest

from qma_net import cli
from qma_net.cli.flags import MODEL_FLAGS, reject_unknown_flags

EVALUATE = ["evaluate", "--checkpoint", "a", "--test-sets", "b", "--out", "c"]
ROBUST = ["robust", *EVALUATE[1:]]


def all_commands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    parsers = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                parsers += all_commands(command)
    return parsers


def command_line_error(capsys, words: list[str]) -> str:
    with pytest.raises(SystemExit) as error:
        cli.main(words)
    assert error.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("command", all_commands(cli._parser()), ids=lambda parser: parser.prog)
def test_every_command_and_argument_has_a_help_text(command):
    assert command.description.endswith(".")
    for action in command._actions:
        if not isinstance(action, argparse._SubParsersAction):
            assert action.help, action.option_strings or action.dest
    assert command.format_help()


def test_model_flags_are_those_of_the_registered_model():
    pytest.importorskip("IMDLBenCo.registry", reason="imdlbenco is not installed")
    from qma_net.benco import QMANet

    assert sorted(inspect.signature(QMANet).parameters) == sorted(MODEL_FLAGS)


@pytest.mark.parametrize(
    ("words", "flag", "suggestion"),
    [
        ([*EVALUATE, "--bacth-size", "3"], "--bacth-size", "--batch-size"),
        ([*EVALUATE, "--siez=b0"], "--siez", "--size"),
        ([*EVALUATE, "--noiseprint-weights", "x"], "--noiseprint-weights", "--noiseprint_weights"),
        ([*EVALUATE, "--model", "MVSSNet", "--wokers", "3"], "--wokers", "--workers"),
        ([*ROBUST, "--attacs", "jpeg"], "--attacs", "--attacks"),
        (["serve", "--prot", "1"], "--prot", "--port"),
        (["serve", "--model", "MVSSNet", "--exmples", "x"], "--exmples", "--examples"),
        (["data", "check", "x", "--fats"], "--fats", "--fast"),
        # The flags that are mistyped or missing are required.
        (["evaluate", "--checkpiont", "x"], "--checkpiont", "--checkpoint"),
        (["robust", "--test-stes=x", "--size", "b0"], "--test-stes", "--test-sets"),
        (["predict", "x.jpg", "--uot", "y", "--thresh", "1"], "--uot", "--out"),
        (["data", "synth", "--photo", "x", "--cuont", "3"], "--cuont", "--count"),
    ],
)
def test_mistyped_flag_is_rejected_with_a_suggestion(capsys, words, flag, suggestion):
    line = command_line_error(capsys, words)
    assert f"unrecognized arguments: {flag} (did you mean {suggestion}?)" in line


def test_unknown_flag_without_a_similar_one_is_rejected(capsys):
    for flag in ("--xyz", "--nosuch"):
        for words in (EVALUATE, ["evaluate"], ["predict", "x.jpg"]):
            line = command_line_error(capsys, [*words, flag])
            assert line.endswith(f"error: unrecognized arguments: {flag}")
    line = command_line_error(capsys, ["data", "protocol", "cat", "more", "--root", "x"])
    assert line == "qma-net data protocol: error: unrecognized arguments: more"


def test_missing_arguments_are_reported_if_all_flags_are_known(capsys):
    line = command_line_error(capsys, ["evaluate", "--model", "MVSSNet", "--patch_size", "4"])
    assert line.endswith("arguments are required: --checkpoint, --test-sets, --out")
    assert command_line_error(capsys, ["data", "synth", "--phot", "x"]).endswith("required: --out")


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        ("QMANet", ["--size", "b0", "--query_count=8", "--drop", "0"]),  # --drop abbreviates
        ("Mesorch", ["--patch_size", "4", "--seg_pretrain_path=x", "--image_size", "512"]),
    ],
)
def test_flags_of_a_model_are_accepted(model, flags):
    argv = [*EVALUATE, "--model", model, *flags]
    args, unknown = cli._parser().parse_known_args(argv)
    assert unknown == flags
    reject_unknown_flags(args, unknown)


def test_mistyped_flags_are_rejected_before_torch_is_loaded():
    code = (
        "import sys\nfrom qma_net.cli import main\n"
        f"try: main({[*EVALUATE, '--bacth-size', '3']})\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert "did you mean --batch-size?" in done.stderr


def test_underscored_flag_is_a_hidden_deprecated_alias(capsys):
    for flag in ("--noiseprint-weights", "--noiseprint_weights"):
        args = cli._parser().parse_args(["examine", "x.jpg", "--out", "o", flag, "file"])
        assert args.noiseprint_weights == "file"
        note = f"qma-net: {flag} is deprecated; use --noiseprint-weights\n"
        assert capsys.readouterr().err == (note if "_" in flag else "")
    with pytest.raises(SystemExit):
        cli.main(["examine", "--help"])
    shown = capsys.readouterr().out
    assert "--noiseprint-weights" in shown
    assert "--noiseprint_weights" not in shown


def test_log_messages_are_printed_without_formatting(capsys):
    for _ in range(2):  # The second call must not add a second handler.
        with pytest.raises(SystemExit):
            cli.main(["--version"])
    capsys.readouterr()
    logger = logging.getLogger("qma_net.some.module")
    logger.info("3 of %d images", 5)
    logger.warning("no CUDA")
    logger.debug("hidden")
    assert capsys.readouterr() == ("3 of 5 images\n", "qma-net: no CUDA\n")


def test_missing_optional_package_names_the_extra(monkeypatch):
    def run(args):
        raise ModuleNotFoundError("No module named 'fastapi.routing'", name="fastapi.routing")

    monkeypatch.setattr("qma_net.cli.model._weights", run)
    message = r"^qma-net: fastapi\.routing is not installed; run: pip install 'qma-net\[web\]'$"
    with pytest.raises(SystemExit, match=message):
        cli.main(["weights"])
