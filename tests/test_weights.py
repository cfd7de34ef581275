"""What happens to files of weights: good, missing, truncated, foreign, of another size."""

import json
import re

import pytest
import torch

from conftest import published_noiseprint
from miniatures import official_names
from qma_net import cli
from qma_net.modeling.backbone import MiT
from qma_net.modeling.config import ARCHITECTURE, SIZES, QMANetConfig
from qma_net.modeling.noise import NoisePrint
from qma_net.modeling.qma_net import QMANetModel
from qma_net.modeling.state import WeightsError, load_strictly
from qma_net.weights.checkpoint import (
    CONFIG_KEY,
    Checkpoint,
    checkpoint_config,
    load_checkpoint,
)
from qma_net.weights.describe import describe
from qma_net.weights.locate import load_model
from qma_net.weights.reading import read_checkpoint
from qma_net.weights.sources import NOISEPRINT_SHA256, load_backbones, mit_state, noiseprint_state


def saved(path, content):
    torch.save(content, path)
    return path


def refused(message, call, *args):
    with pytest.raises(WeightsError, match=re.escape(message)) as error:
        call(*args)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("container", ["network", "bare", "trufor", "parallel"])
def test_noiseprint_in_every_container(tmp_path, container):
    state = published_noiseprint().state_dict()
    trufor = {f"dncnn.{name}": tensor for name, tensor in state.items()}
    content = {
        "network": {"network": state, "global_step": 3},
        "bare": state,
        "trufor": {"state_dict": {**trufor, "backbone.x": torch.zeros(1)}},
        "parallel": {"network": {f"module.{n}": t for n, t in state.items()}},
    }[container]
    folded = noiseprint_state(saved(tmp_path / "np.th", content))
    noiseprint = NoisePrint()
    load_strictly(noiseprint, folded, "test")
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        expected = published_noiseprint()(image)
        assert (noiseprint(image) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_missing_truncated_foreign_and_incomplete_noiseprint(tmp_path):
    state = published_noiseprint().state_dict()
    refused("there is no such file", noiseprint_state, tmp_path / "nowhere.th")
    whole = saved(tmp_path / "np.th", {"network": state}).read_bytes()
    (tmp_path / "cut.th").write_bytes(whole[: len(whole) // 2])
    refused("expected a complete PyTorch file", noiseprint_state, tmp_path / "cut.th")
    (tmp_path / "empty.th").write_bytes(b"")
    refused("(0 bytes)", noiseprint_state, tmp_path / "empty.th")
    (tmp_path / "text.th").write_text("<html>not found</html>")
    refused("expected a complete PyTorch file", noiseprint_state, tmp_path / "text.th")
    foreign = saved(tmp_path / "foreign.th", {"network": {"a": torch.zeros(1)}})
    refused("expected NoisePrint++", noiseprint_state, foreign)
    del state["23.weight"]
    partial = saved(tmp_path / "partial.th", {"network": state})
    refused("without tensor '23.weight'", noiseprint_state, partial)


def test_a_file_with_code_in_it_is_not_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    torch.save({"network": Bomb()}, tmp_path / "bomb.th")
    refused("expected a complete PyTorch file", read_checkpoint, tmp_path / "bomb.th")
    assert not (tmp_path / "exploded").exists()


def test_backbones_of_another_size_or_nowhere(tmp_path):
    official = official_names(MiT(*SIZES["b0"], drop_path=0.0).state_dict())
    path = saved(tmp_path / "mit_b0.pth", official)
    model = QMANetModel.from_config(QMANetConfig(size="b1", views="srm"))
    refused("backbone weights for --size b1", load_backbones, model, path)
    refused("of another shape", load_backbones, model, path)
    refused("there is no such file", load_backbones, model, "weights/mit_b1.pth")
    del official["block2.1.attn.kv.bias"]
    partial = saved(tmp_path / "partial.pth", official)
    small = QMANetModel.from_config(QMANetConfig(size="b0", views="srm"))
    refused("2 missing (first: stages.1.blocks.1", load_backbones, small, partial)


def test_a_hub_id_without_a_network_is_one_clear_line():
    refused("expected a directory or hub id", mit_state, "nvidia/no-such-mit")


def checkpoint(tmp_path, **choices):
    """A file as BenCo's trainer writes it, of a tiny model."""
    import argparse

    from qma_net.benco import QMANet

    with pytest.warns(UserWarning, match="random backbones"):
        model = QMANet(**{"size": "tiny", "views": "srm,bayar", **choices})
    content = {"model": model.state_dict(), "epoch": 3, "args": argparse.Namespace(lr=1e-4)}
    return model, saved(tmp_path / "checkpoint-3.pth", content)


def test_a_checkpoint_rebuilds_its_model_without_flags(tmp_path, noiseprint_file):
    model, path = checkpoint(
        tmp_path,
        views="srm,noiseprint",
        noiseprint_weights=str(noiseprint_file),
        query_count=4,
        dfcm_stages="4",
    )
    noiseprint_file.unlink()  # its weights travel in the checkpoint
    rebuilt = load_checkpoint(path)
    assert checkpoint_config(path) == model.config
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.network.eval()(image).mask_logits
        assert torch.equal(rebuilt.eval()(image).mask_logits, expected)


def test_a_state_dict_without_configuration_names_the_flags(tmp_path):
    model, _ = checkpoint(tmp_path)
    bare = {n: t for n, t in model.state_dict().items() if n != CONFIG_KEY}
    refused("--size --views", load_checkpoint, saved(tmp_path / "bare.pth", bare))
    refused("--size --views", model.load_state_dict, bare)


def test_a_checkpoint_of_another_architecture_names_the_flags(tmp_path):
    model, _ = checkpoint(tmp_path)
    other, _ = checkpoint(tmp_path, query_count=8)
    message = "a model with --query_count 16, expected one with --query_count 8"
    refused(message, other.load_state_dict, model.state_dict())


def test_a_checkpoint_of_an_older_architecture_names_its_version(tmp_path):
    model, _ = checkpoint(tmp_path)
    state = model.state_dict()
    content = json.loads(bytes(state[CONFIG_KEY].tolist()))
    assert content["architecture"] == ARCHITECTURE
    del content["architecture"]  # as the first one had it
    content["qma_net"] = "0.1.0"
    state[CONFIG_KEY] = torch.tensor(list(json.dumps(content).encode()), dtype=torch.uint8)
    message = "of architecture 1, written by qma-net 0.1.0, expected architecture 2"
    refused(message, load_checkpoint, saved(tmp_path / "old.pth", {"model": state}))
    refused(message, model.load_state_dict, state)


def test_init_from_starts_a_fine_tuning(tmp_path):
    from qma_net.benco import QMANet

    model, path = checkpoint(tmp_path)
    tuned = QMANet(size="tiny", views="srm,bayar", init_from=str(path), drop_path=0.2)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), tuned.parameters(), strict=True)
    )
    with pytest.raises(WeightsError, match="give --views srm,bayar"):
        QMANet(size="tiny", views="srm", init_from=str(path))


def test_every_learnt_tensor_changes_when_a_checkpoint_is_loaded(tmp_path):
    """Strict loading by effect: nothing keeps its random start."""
    model, path = checkpoint(tmp_path)
    fresh = QMANetModel.from_config(model.config)
    before = {n: t.clone() for n, t in fresh.state_dict().items()}
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=3)
    Checkpoint.read(saved(path, {"model": model.state_dict()})).load_into(fresh)
    assert not any(torch.equal(before[n], t) for n, t in fresh.state_dict().items())


def test_weights_command_lists_and_checks(tmp_path, capsys, noiseprint_file):
    cli.main(["weights"])
    listing = capsys.readouterr().out
    for fact in ("noiseprint++.th", "mit_b3.pth", NOISEPRINT_SHA256, "terms:", "published"):
        assert fact in listing
    cli.main(["weights", str(noiseprint_file)])
    assert "complete NoisePrint++ (SHA-256 differs" in capsys.readouterr().out
    official = official_names(MiT(*SIZES["b0"], drop_path=0.0).state_dict())
    cli.main(["weights", str(saved(tmp_path / "mit.pth", official))])
    assert "complete MiT-B0 weights" in capsys.readouterr().out
    cli.main(["weights", str(checkpoint(tmp_path)[1])])
    assert "--size tiny --views srm,bayar" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"qma-net: got .*nowhere"):
        cli.main(["weights", "nowhere.pth"])


def test_published_file_is_recognised(shared, capsys):
    cli.main(["weights", str(shared("noiseprintpp/noiseprint++.th"))])
    assert "SHA-256 as published" in capsys.readouterr().out


@pytest.fixture
def loads(monkeypatch):
    """Every call of torch.load: what it read, and whether only the header."""
    calls, load = [], torch.load

    def counted(path, **options):
        calls.append((str(path), options.get("mmap", False)))
        return load(path, **options)

    monkeypatch.setattr(torch, "load", counted)
    return calls


def test_a_checkpoint_is_read_once(loads, tmp_path):
    """By every command that takes one; the launcher maps it for its configuration alone."""
    pytest.importorskip("IMDLBenCo", reason="imdlbenco is absent")
    from qma_net.evaluation.subject import Subject

    _, path = checkpoint(tmp_path)
    once = [(str(path), False)]
    for read in (
        lambda: describe(path),
        lambda: load_checkpoint(path),
        lambda: load_model(path),
        lambda: cli.main(["convert", str(path), "--out", str(tmp_path / "hub")]),
        lambda: Subject.load("QMANet", [], path, "cpu"),
    ):
        loads.clear()
        read()
        assert loads == once
    loads.clear()
    checkpoint_config(path)
    assert loads == [(str(path), True)]


@pytest.mark.parametrize("kind", ["mit", "noiseprint"])
def test_published_weights_are_read_once(kind, noiseprint_file, loads, tmp_path):
    state = official_names(MiT(*SIZES["b0"], drop_path=0.0).state_dict())
    file = saved(tmp_path / "mit.pth", state) if kind == "mit" else noiseprint_file
    describe(file)
    assert loads == [(str(file), False)]
