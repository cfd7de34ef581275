"""Malicious and damaged weight files: rejected with a one-line error, without running code."""

import argparse
import json
import os
import pickle
import random
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from qma_net import cli
from qma_net.core.errors import QMANetError
from qma_net.modeling.hub import CONFIG_NAME, WEIGHTS_FILE
from qma_net.weights.checkpoint import CONFIG_KEY, config_to_extra_state, load_checkpoint
from qma_net.weights.describe import describe
from qma_net.weights.locate import load_model
from qma_net.weights.sources import mit_state, noiseprint_state

READERS = (load_checkpoint, load_model, describe, noiseprint_state, mit_state)
SEED = 20261124


@pytest.fixture
def state(build_tiny):
    model = build_tiny(views="srm")
    tensors = {f"network.{name}": tensor for name, tensor in model.state_dict().items()}
    return tensors | {CONFIG_KEY: config_to_extra_state(model.config)}


def extra(content) -> torch.Tensor:
    text = content if isinstance(content, str) else json.dumps(content)
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def changed(state, **config):
    """Return the state with other values in its configuration."""
    content = json.loads(bytes(state[CONFIG_KEY].tolist()))
    content["config"] |= config
    return state | {CONFIG_KEY: extra(content)}


def refused(path, reader=load_checkpoint) -> str:
    with pytest.raises(QMANetError) as error:
        reader(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 2000
    return str(error.value)


@pytest.mark.parametrize(
    "config",
    [
        {"size": ["b0"]},
        {"size": 3},
        {"query_count": 16.0},
        {"query_count": 10**9},
        {"query_count": True},
        {"query_count": "16"},
        {"drop_path": "0.1"},
        {"drop_path": float("nan")},
        {"drop_path": None},
        {"views": None},
        {"decoder": {"query": 1}},
        {"size": "x" * 10**6},
    ],
)
def test_configuration_is_checked_before_anything_is_allocated(state, tmp_path, config):
    path = tmp_path / "checkpoint-0.pth"
    torch.save({"model": changed(state, **config)}, path)
    message = refused(path)
    assert next(iter(config)) in message or "contains no QMANet configuration" in message


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '{"config": ' * 5000,
        "not JSON",
        "[1, 2]",
        '{"config": [1]}',
        '{"config": 3, "architecture": 2}',
        '{"architecture": "2"}',
    ],
    ids=range(7),
)
def test_invalid_configuration_gives_one_line_error(state, tmp_path, content):
    torch.save({"model": state | {CONFIG_KEY: extra(content)}}, tmp_path / "checkpoint-0.pth")
    assert "contains no QMANet configuration" in refused(tmp_path / "checkpoint-0.pth")


def test_small_file_cannot_claim_a_large_configuration(tmp_path):
    path = tmp_path / "checkpoint-0.pth"
    torch.save({"model": {CONFIG_KEY: torch.zeros(1, dtype=torch.uint8).expand(10**9)}}, path)
    assert path.stat().st_size < 2**12
    assert "contains no QMANet configuration" in refused(path)


def quantized(tensor):
    return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


UNDENSE = "contains a sparse, quantized or empty tensor as"

# Replacements for a tensor, and what the error message says about each.
REPLACEMENTS = {
    "list": (lambda _: [1.0], "contains a list as"),
    "None": (lambda _: None, "contains a NoneType as"),
    "string": (lambda _: "text", "contains a str as"),
    "complex": (lambda tensor: tensor.to(torch.complex64), "contains a torch.complex64 tensor as"),
    "integers": (lambda tensor: tensor.to(torch.int64), "torch.int64 instead of torch.float32"),
    "booleans": (lambda tensor: tensor > 0, "contains a torch.bool tensor as"),
    "sparse": (lambda tensor: tensor.to_sparse(), UNDENSE),
    "meta": (lambda tensor: tensor.to("meta"), UNDENSE),
    "quantized": (quantized, UNDENSE),
    "NaN": (lambda tensor: tensor * float("nan"), "contain NaN or infinity"),
    "infinite": (lambda tensor: tensor + float("inf"), "contain NaN or infinity"),
    "another shape": (lambda tensor: tensor[..., :1], "of the wrong shape"),
    "expanded": (lambda tensor: tensor.flatten()[:1].expand(10**9), "of the wrong shape"),
}


@pytest.mark.parametrize("kind", REPLACEMENTS)
def test_every_tensor_is_checked(state, tmp_path, kind):
    name = next(n for n, t in state.items() if n != CONFIG_KEY and t.dim() > 1)
    path = tmp_path / "checkpoint-0.pth"
    replace, expected = REPLACEMENTS[kind]
    torch.save({"model": state | {name: replace(state[name])}}, path)
    message = refused(path)
    assert name.removeprefix("network.") in message
    assert expected in message


@pytest.mark.parametrize("key", [1, None, ("a", 1), 2.5], ids=str)
def test_keys_that_are_not_strings_are_rejected(state, tmp_path, key):
    path = tmp_path / "checkpoint-0.pth"
    torch.save({"model": {**state, key: torch.zeros(1)}}, path)
    for reader in READERS:
        refused(path, reader)


class RunsCode:
    """An object that runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_no_reader_runs_code(state, tmp_path):
    marker, paths = tmp_path / "ran", []
    for i, content in enumerate(
        (
            RunsCode(marker),
            {"model": RunsCode(marker)},
            {"model": {**state, "x": RunsCode(marker)}},
            {"model": state, "args": argparse.Namespace(image_size=RunsCode(marker))},
        )
    ):
        for save in (torch.save, lambda c, p: p.write_bytes(pickle.dumps(c))):
            paths.append(tmp_path / f"{i}-{len(paths)}.pth")
            save(content, paths[-1])
    with zipfile.ZipFile(tmp_path / "hand.pth", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(RunsCode(marker)))
        file.writestr("archive/version", "3")
    for path in [*paths, tmp_path / "hand.pth"]:
        for reader in READERS:
            refused(path, reader)
        for command in (["weights", path], ["convert", path, "--out", tmp_path / "out"]):
            with pytest.raises(SystemExit, match=rf"^qma-net: .*{path.name}"):
                cli.main([*map(str, command)])
    assert not marker.exists()


def test_mutated_file_is_loaded_or_gives_one_line_error(state, tmp_path):
    path, draw = tmp_path / "checkpoint-0.pth", random.Random(SEED)
    torch.save({"model": state, "args": argparse.Namespace(image_size=64)}, path)
    whole = path.read_bytes()
    for trial in range(60):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 3, 30))):
            at, length = draw.randrange(len(data)), draw.choice((1, 2, 8, 600))
            kind = draw.randrange(4)
            if kind == 0:
                data[at : at + length] = draw.randbytes(length)
            elif kind == 1:
                del data[at : at + length]
            elif kind == 2:
                data[at:at] = data[at : at + length]
            else:
                data[at : at + length] = bytes(length)
        path.write_bytes(data)
        try:
            load_checkpoint(path)
        except QMANetError as error:
            lines = str(error).splitlines()
        except BaseException as error:
            raise AssertionError(f"seed {SEED}, trial {trial}") from error
        else:
            lines = ["loaded"]
        assert len(lines) == 1, f"seed {SEED}, trial {trial}"


@pytest.mark.parametrize(
    "config", ["[]", "3", "null", "{", "[" * 100_000, '{"a": 1}', "x" * 2**17, '{"size": []}']
)
def test_directory_with_invalid_configuration_is_rejected(tmp_path, config):
    (tmp_path / CONFIG_NAME).write_text(config)
    save_file({"a": torch.zeros(1)}, tmp_path / WEIGHTS_FILE)
    assert "config.json" in (message := refused(tmp_path, load_model))
    assert "the configuration of a QMA-Net" in message


@pytest.mark.parametrize(
    "content",
    ["[]", "{", '{"image_size": "64", "fit": "resize"}', '{"image_size": 1}', '{"fit": 1}'],
)
def test_invalid_preprocessor_configuration_is_rejected(build_tiny, tmp_path, content):
    build_tiny(views="srm").save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(content)
    assert "expected image_size and fit" in refused(tmp_path, load_model)


def test_damaged_safetensors_file_is_rejected(build_tiny, tmp_path):
    build_tiny(views="srm").save_pretrained(tmp_path)
    whole = (tmp_path / WEIGHTS_FILE).read_bytes()
    for data in (b"", whole[:100], b"\xff" * 16 + whole[16:], whole[:-4]):
        (tmp_path / WEIGHTS_FILE).write_bytes(data)
        refused(tmp_path, load_model)
