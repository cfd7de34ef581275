"""Weight files: valid, missing, truncated, of another model and of another size."""

import json
import re
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SegformerConfig, SegformerModel

from conftest import ROOT, published_noiseprint
from qma_net import cli
from qma_net.modeling.backbone import MiT
from qma_net.modeling.config import ARCHITECTURE, SIZES, Preprocessing, QMANetConfig
from qma_net.modeling.noise import NoisePrint
from qma_net.modeling.qma_net import QMANetModel
from qma_net.modeling.state import WeightsError, load_strictly
from qma_net.weights.checkpoint import (
    CONFIG_KEY,
    Checkpoint,
    load_checkpoint,
)
from qma_net.weights.describe import describe
from qma_net.weights.locate import load_model, read_source
from qma_net.weights.names import SMALL
from qma_net.weights.reading import read_checkpoint
from qma_net.weights.sources import NOISEPRINT_SHA256, load_backbones, mit_state, noiseprint_state
from sample_archives import official_names

SMALL_FOLDER = ROOT / "qma_net/weights" / SMALL


def save(path, content):
    torch.save(content, path)
    return path


def assert_rejected(message, call, *args):
    with pytest.raises(WeightsError, match=re.escape(message)) as error:
        call(*args)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("container", ["network", "bare", "trufor", "parallel"])
def test_noiseprint_is_read_from_every_published_layout(tmp_path, container):
    state = published_noiseprint().state_dict()
    trufor = {f"dncnn.{name}": tensor for name, tensor in state.items()}
    content = {
        "network": {"network": state, "global_step": 3},
        "bare": state,
        "trufor": {"state_dict": {**trufor, "backbone.x": torch.zeros(1)}},
        "parallel": {"network": {f"module.{n}": t for n, t in state.items()}},
    }[container]
    folded = noiseprint_state(save(tmp_path / "np.th", content))
    noiseprint = NoisePrint()
    load_strictly(noiseprint, folded, "test")
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        expected = published_noiseprint()(image)
        assert (noiseprint(image) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_invalid_noiseprint_files_are_rejected(tmp_path):
    state = published_noiseprint().state_dict()
    assert_rejected("cannot find the weights file", noiseprint_state, tmp_path / "nowhere.th")
    whole = save(tmp_path / "np.th", {"network": state}).read_bytes()
    (tmp_path / "cut.th").write_bytes(whole[: len(whole) // 2])
    assert_rejected("is not a complete PyTorch file", noiseprint_state, tmp_path / "cut.th")
    (tmp_path / "empty.th").write_bytes(b"")
    assert_rejected("(0 bytes)", noiseprint_state, tmp_path / "empty.th")
    (tmp_path / "text.th").write_text("<html>not found</html>")
    assert_rejected("is not a complete PyTorch file", noiseprint_state, tmp_path / "text.th")
    foreign = save(tmp_path / "foreign.th", {"network": {"a": torch.zeros(1)}})
    assert_rejected("is not NoisePrint++", noiseprint_state, foreign)
    del state["23.weight"]
    partial = save(tmp_path / "partial.th", {"network": state})
    assert_rejected("it has no tensor '23.weight'", noiseprint_state, partial)


def test_code_in_a_file_is_not_executed(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"network": Malicious()}, tmp_path / "malicious.th")
    assert_rejected("is not a complete PyTorch file", read_checkpoint, tmp_path / "malicious.th")
    assert not (tmp_path / "executed").exists()


def test_encoders_that_are_missing_incomplete_or_of_the_wrong_size_are_rejected(tmp_path):
    official = official_names(MiT(*SIZES["b0"], drop_path=0.0).state_dict())
    path = save(tmp_path / "mit_b0.pth", official)
    model = QMANetModel.from_config(QMANetConfig(size="b1", views="srm"))
    assert_rejected("encoder weights for --size b1", load_backbones, model, path)
    assert_rejected("of the wrong shape", load_backbones, model, path)
    assert_rejected("cannot find the encoder weights", load_backbones, model, "weights/mit_b1.pth")
    del official["block2.1.attn.kv.bias"]
    partial = save(tmp_path / "partial.pth", official)
    small = QMANetModel.from_config(QMANetConfig(size="b0", views="srm"))
    assert_rejected("2 missing (first: stages.1.blocks.1", load_backbones, small, partial)


def test_hub_id_without_network_gives_one_line_error():
    assert_rejected("cannot load a SegFormer from", mit_state, "nvidia/no-such-mit")


def checkpoint(tmp_path, **choices):
    """Save a tiny model as BenCo's trainer does; return the model and the file."""
    import argparse

    from qma_net.benco import QMANet

    with pytest.warns(UserWarning, match="random encoders"):
        model = QMANet(**{"size": "tiny", "views": "srm,bayar", **choices})
    content = {"model": model.state_dict(), "optimizer": {}, "epoch": 3}
    content["args"] = argparse.Namespace(lr=1e-4)
    return model, save(tmp_path / "checkpoint-3.pth", content)


def test_checkpoint_rebuilds_its_model_without_flags(tmp_path, noiseprint_file):
    model, path = checkpoint(
        tmp_path,
        views="srm,noiseprint",
        noiseprint_weights=str(noiseprint_file),
        query_count=4,
        dfcm_stages="4",
    )
    noiseprint_file.unlink()  # The checkpoint contains its weights.
    rebuilt = load_checkpoint(path)
    assert Checkpoint.read(path, mapped=True).config == model.config
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.network.eval()(image).mask_logits
        assert torch.equal(rebuilt.eval()(image).mask_logits, expected)


def test_error_for_state_dict_without_configuration_names_the_flags(tmp_path):
    model, _ = checkpoint(tmp_path)
    without_config = {n: t for n, t in model.state_dict().items() if n != CONFIG_KEY}
    assert_rejected("--size --views", load_checkpoint, save(tmp_path / "bare.pth", without_config))
    assert_rejected("--size --views", model.load_state_dict, without_config)


def test_error_for_checkpoint_of_another_architecture_names_the_flags(tmp_path):
    model, _ = checkpoint(tmp_path)
    other, _ = checkpoint(tmp_path, query_count=8)
    message = "a model with --query_count 16, but this model has --query_count 8"
    assert_rejected(message, other.load_state_dict, model.state_dict())


def test_error_for_checkpoint_of_an_older_architecture_names_its_version(tmp_path):
    model, _ = checkpoint(tmp_path)
    state = model.state_dict()
    content = json.loads(bytes(state[CONFIG_KEY].tolist()))
    assert content["architecture"] == ARCHITECTURE
    del content["architecture"]  # The first version did not store it.
    content["qma_net"] = "0.1.0"
    state[CONFIG_KEY] = torch.tensor(list(json.dumps(content).encode()), dtype=torch.uint8)
    message = "has architecture 1, written by qma-net 0.1.0, but qma-net"
    assert_rejected(message, load_checkpoint, save(tmp_path / "old.pth", {"model": state}))
    assert_rejected(message, model.load_state_dict, state)


def test_init_from_starts_from_the_weights_of_a_checkpoint(tmp_path):
    from qma_net.benco import QMANet

    model, path = checkpoint(tmp_path)
    fine_tuned = QMANet(size="tiny", views="srm,bayar", init_from=str(path), drop_path=0.2)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), fine_tuned.parameters(), strict=True)
    )
    with pytest.raises(WeightsError, match="pass --views srm,bayar"):
        QMANet(size="tiny", views="srm", init_from=str(path))


@pytest.mark.parametrize("flag", ["--resume", "--checkpoint_path"])
def test_checkpoint_replaces_the_weights_that_its_run_started_from(tmp_path, flag):
    """Resuming offline with the same command failed, since it looked for ImageNet weights."""
    from qma_net.launch.flags import complete_from_checkpoint
    from qma_net.launch.pretrained import hub_download

    _, path = checkpoint(tmp_path)
    given = ["--backbone_weights", "nvidia/mit-b0", "--noiseprint_weights=lost.th"]
    given += ["--init_from", "someone/model"]
    flags = complete_from_checkpoint(["--model", "QMANet", flag, str(path), *given])
    assert flags.count("--init_from") == 1
    assert flags[flags.index("--init_from") + 1] == str(path)
    names = ("--backbone_weights", "--noiseprint_weights")
    assert not [word for word in flags if word.startswith(names)]
    assert hub_download(flags) is None


@pytest.mark.parametrize("source", [SMALL, SMALL_FOLDER, SMALL_FOLDER / "model.safetensors"])
def test_init_from_accepts_the_packaged_model_and_saved_folders(source):
    from qma_net.benco import QMANet
    from qma_net.launch.flags import complete_from_checkpoint

    model = QMANet("b0", "srm,bayar", init_from=str(source))
    expected = load_model(SMALL).state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in model.network.state_dict().items())
    flags = complete_from_checkpoint(["--model", "QMANet", "--init_from", str(source)])
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    assert (given["--size"], given["--views"]) == ("b0", "srm,bayar")
    assert given["--init_from"] == str(source)


def test_fine_tuning_warns_about_resizing_for_a_model_trained_without(tmp_path, caplog):
    """The packaged model was trained at original resolution, the other one on resized images."""
    from qma_net.launch.flags import complete_from_checkpoint

    model = load_model(SMALL)
    model.preprocessing = Preprocessing(512)
    model.save_pretrained(tmp_path)
    for source, given, fit in [
        (SMALL, "--if_resizing", ""),
        (SMALL, "--if_resizing", "native"),  # Only the test images are resized.
        (SMALL, "--if_padding", ""),
        (str(tmp_path), "--if_resizing", ""),
    ]:
        complete_from_checkpoint(["--model", "QMANet", "--init_from", source, given], fit=fit)
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert warning.message == (
        "qma-net-small was trained at original resolution, but --if_resizing resizes the images; "
        "replace --if_resizing with --fit native (docs/training.md, Fine-tuning)"
    )


def test_init_from_uses_the_newest_checkpoint_of_a_folder(tmp_path):
    model, path = checkpoint(tmp_path)
    path.rename(tmp_path / "checkpoint-12.pth")
    _, older = checkpoint(tmp_path)
    stored = read_source(tmp_path).network
    assert older.name == "checkpoint-3.pth"
    assert all(torch.equal(t, stored[n]) for n, t in model.network.state_dict().items())


def test_loading_a_checkpoint_replaces_every_tensor(tmp_path):
    model, path = checkpoint(tmp_path)
    fresh = QMANetModel.from_config(model.config)
    before = {n: t.clone() for n, t in fresh.state_dict().items()}
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=3)
    Checkpoint.read(save(path, {"model": model.state_dict()})).load_into(fresh)
    assert not any(torch.equal(before[n], t) for n, t in fresh.state_dict().items())


def test_weights_command_lists_published_weights_and_checks_files(
    tmp_path, capsys, noiseprint_file
):
    cli.main(["weights"])
    listing = capsys.readouterr().out
    for fact in ("noiseprint++.th", "mit_b3.pth", NOISEPRINT_SHA256, "terms:", "published"):
        assert fact in listing
    cli.main(["weights", str(noiseprint_file)])
    assert "complete NoisePrint++ (SHA-256 differs" in capsys.readouterr().out
    official = official_names(MiT(*SIZES["b0"], drop_path=0.0).state_dict())
    cli.main(["weights", str(save(tmp_path / "mit.pth", official))])
    assert "complete MiT-B0 weights" in capsys.readouterr().out
    cli.main(["weights", str(checkpoint(tmp_path)[1])])
    assert "--size tiny --views srm,bayar" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"qma-net: cannot find the weights file .*nowhere"):
        cli.main(["weights", "nowhere.pth"])


def test_weights_command_describes_folders_and_the_files_in_them(tmp_path):
    small = "a complete QMA-Net (--size b0 --views srm,bayar "
    for path in (SMALL_FOLDER, SMALL_FOLDER / "model.safetensors"):
        assert describe(path).startswith(f"{path}: {small}")
        assert "misses many real ones" in describe(path)
    checkpoint(tmp_path)
    expected = f"{tmp_path / 'checkpoint-3.pth'}: a complete QMA-Net checkpoint (--size tiny"
    assert describe(tmp_path).startswith(expected)
    mit = tmp_path / "mit-b0"
    SegformerModel(SegformerConfig()).save_pretrained(mit)  # The default is B0.
    for path in (mit, mit / "model.safetensors"):
        assert describe(path) == (
            f"{path}: complete MiT-B0 weights (--size b0); pass the folder as --backbone_weights"
        )
    (mit / "config.json").unlink()
    assert_rejected("cannot be used without the config.json", describe, mit / "model.safetensors")


def test_folder_without_configuration_gives_one_line_that_names_published_files(tmp_path, capfd):
    with pytest.raises(SystemExit, match=r"has no config\.json; pass a directory written by"):
        cli.main(["weights", str(tmp_path)])
    (tmp_path / "noiseprint++.th").touch()
    with pytest.raises(SystemExit, match=r"contains noiseprint\+\+.th; pass the path of a file"):
        cli.main(["weights", str(tmp_path)])
    assert capfd.readouterr().err == ""


def test_weights_command_recognizes_the_published_noiseprint(shared, capsys):
    cli.main(["weights", str(shared("noiseprintpp/noiseprint++.th"))])
    assert "SHA-256 as published" in capsys.readouterr().out


@pytest.fixture
def loads(monkeypatch):
    """Record every call of torch.load as (path, whether the file was mapped)."""
    calls, load = [], torch.load

    def counted(path, **options):
        calls.append((str(path), options.get("mmap", False)))
        return load(path, **options)

    monkeypatch.setattr(torch, "load", counted)
    return calls


def test_every_command_reads_a_checkpoint_once(loads, tmp_path):
    """The launcher only maps the file, to read the configuration."""
    pytest.importorskip("IMDLBenCo", reason="imdlbenco is absent")
    from qma_net.evaluation.evaluated_model import EvaluatedModel

    _, path = checkpoint(tmp_path)
    one_load = [(str(path), False)]
    for read in (
        lambda: describe(path),
        lambda: load_checkpoint(path),
        lambda: load_model(path),
        lambda: cli.main(["convert", str(path), "--out", str(tmp_path / "hub")]),
        lambda: EvaluatedModel.load("QMANet", [], path, "cpu"),
    ):
        loads.clear()
        read()
        assert loads == one_load
    loads.clear()
    Checkpoint.read(path, mapped=True)
    assert loads == [(str(path), True)]


@pytest.mark.parametrize("kind", ["mit", "noiseprint"])
def test_weights_command_reads_published_weights_once(kind, noiseprint_file, loads, tmp_path):
    state = official_names(MiT(*SIZES["b0"], drop_path=0.0).state_dict())
    file = save(tmp_path / "mit.pth", state) if kind == "mit" else noiseprint_file
    describe(file)
    assert loads == [(str(file), False)]


def test_damaged_legacy_pickle_gives_one_line_error(tmp_path):
    """Depending on the damage, torch.load raises TypeError, IndexError, AssertionError and more."""
    content = {"model": {"a": torch.zeros(3), "b": torch.ones(2, 2)}}
    torch.save(content, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "legacy.pth").read_bytes()
    errors = []
    for position in range(len(whole)):
        for value in (0x00, 0x30, 0x65, 0x85, 0xFF):
            damaged = whole[:position] + bytes([value]) + whole[position + 1 :]
            (tmp_path / "damaged.pth").write_bytes(damaged)
            try:
                read_checkpoint(tmp_path / "damaged.pth")
            except WeightsError as error:
                errors.append(error)
    causes = {type(error.__cause__).__name__ for error in errors}
    assert {"TypeError", "IndexError", "AssertionError"} <= causes
    assert not any("\n" in str(error) for error in errors)


def test_files_without_weights_are_named_without_unsafe_advice(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    assert_rejected("is not a checkpoint: it is a JPEG image", describe, tmp_path / "a.jpg")
    for name, kind in (("zip.pth", True), ("legacy.pth", False)):
        content = {"model": {"a": np.zeros(3)}}
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=kind)
    (tmp_path / "noise.pth").write_bytes(b"\xff\x00" * 100)
    for name in ("zip.pth", "legacy.pth", "noise.pth"):
        with pytest.raises(WeightsError, match="is not a complete PyTorch file") as error:
            read_checkpoint(tmp_path / name)
        assert "weights_only" not in str(error.value)
        assert "Unsupported " in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [{}, {"model": {}}])
def test_file_without_tensors_is_reported_as_such(tmp_path, content):
    path = save(tmp_path / "x.pth", content)
    for call in (describe, noiseprint_state):
        assert_rejected("contains no tensors", call, path)


def test_load_checkpoint_names_the_function_for_folders(tmp_path):
    assert_rejected("is a folder, not a checkpoint; load a folder", load_checkpoint, SMALL_FOLDER)
    assert_rejected("is a folder; pass the path of a file", noiseprint_state, tmp_path)


def test_compressed_file_is_rejected_before_it_is_expanded(tmp_path, monkeypatch):
    """A zip of 1 MB can contain a gigabyte of zeros, which torch would load."""
    plain = save(tmp_path / "plain.pth", {"model": {"a": torch.zeros(2**20)}})
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", 8) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert packed.stat().st_size < 2**15
    assert set(read_checkpoint(plain)) == {"model"}
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the file was expanded"))
    assert_rejected("would expand to 4,19", read_checkpoint, packed)
