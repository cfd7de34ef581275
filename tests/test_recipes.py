"""Recipes of BenCo's models match its templates and are accepted by the scripts and models."""

import inspect
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("IMDLBenCo.model_zoo", reason="BenCo's models are not installed")

import IMDLBenCo
from IMDLBenCo.datasets import ManiDataset
from IMDLBenCo.registry import MODELS
from IMDLBenCo.training_scripts.train import get_args_parser

from benchmarks.peers.models import write_placeholder_weights
from conftest import ROOT, photograph
from qma_net.cli import main as qma_net
from qma_net.launch.recipes import read_recipes, recipe_lines
from test_shell import dry_run, error_message, parse

RECIPES = read_recipes()
TEMPLATES = Path(IMDLBenCo.__file__).parent / "statics/model_zoo/runs"
OWN = {"RECIPE": "own"}

# Flags of the templates that are not part of a recipe: paths, the machine, and those that have no
# effect (see the comment in peers.yaml). The remaining ones are compared.
MACHINE = {"standalone", "nnodes", "world_size", "num_workers", "seed", "det_resume_ckpt"}
OUTPUT = {"data_path", "test_data_path", "output_dir", "log_dir", "if_predict_label", "model"}


def template(name: str) -> dict[str, str]:
    """Return the flags of one of BenCo's scripts; a flag without a value has an empty one."""
    text = re.sub(r"^#.*|[12]>.*", "", (TEMPLATES / name).read_text(encoding="utf-8"), flags=re.M)
    words = shlex.split(text.replace("\\\n", " "))
    return {
        word[2:].split("=")[0]: word.partition("=")[2] or ("" if after[:2] == "--" else after)
        for word, after in zip(words, [*words[1:], ""], strict=True)
        if word.startswith("--")
    }


def test_every_model_of_benco_has_a_recipe():
    assert set(RECIPES) == {
        *("Cat_Net", "IML_ViT", "MSCDI_Net", "MVSSNet", "MantraNet", "Mesorch", "ObjectFormer"),
        *("PSCC_Net", "SPAN", "SparseViT", "Trufor"),
    }
    assert all(MODELS.has(name) for name in RECIPES)


@pytest.mark.parametrize("model", RECIPES)
def test_recipe_is_that_of_the_template(model):
    recipe = RECIPES[model]
    flags = template(recipe["source"])
    assert flags["model"] == model
    ignored = MACHINE | OUTPUT | (set() if "benco" in recipe else {"edge_mask_width"})
    expected = {"image_size": "512"}  # BenCo's default.
    expected |= {name: value for name, value in flags.items() if name not in ignored}
    accumulation = recipe["total_batch"] / recipe["gpus"] / recipe["batch"]
    given = {"nproc_per_node": recipe["gpus"], "batch_size": recipe["batch"]}
    given |= {"accum_iter": accumulation, "epochs": recipe["epochs"]}
    given |= {"image_size": recipe["image_size"]}
    given |= {"if_padding" if recipe["fit"] == "pad" else "if_resizing": ""}
    for kind in ("model", "train", "benco"):
        given |= recipe.get(kind, {})
    parameters = inspect.signature(MODELS.get(model)).parameters
    for name in [name for name, value in given.items() if value == "{image_size}"]:
        del given[name]  # Templates rely on the default.
        assert parameters[name].default == recipe["image_size"]
    assert {name: comparable(value) for name, value in given.items()} == {
        name: comparable(value) for name, value in expected.items()
    }


def comparable(value):
    """Return numbers as such, paths without their folders, and true as an empty string."""
    text = "" if value is True else Path(str(value)).name
    try:
        return float(text)
    except ValueError:
        return text


def test_documentation_lists_the_recipes():
    text = (ROOT / "docs/reproduce.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .* \| `(\w+)` \| (.*) \|$", text, re.M)
    documented = {model: cells.split(" | ") for model, cells in rows[1:]}  # Without the header.
    assert documented.keys() == RECIPES.keys()
    for model, recipe in RECIPES.items():
        size, batch, rate, epochs, _ = documented[model]
        fit = {"pad": "padded", "resize": "resized"}[recipe["fit"]]
        assert size == f"{fit} to {recipe['image_size']}"
        assert (int(batch), int(epochs)) == (recipe["total_batch"], recipe["epochs"])
        assert float(rate) == recipe["train"]["lr"]


def check_commands(script, model, tmp_path, monkeypatch, **variables):
    """Parse the commands of a dry run with the model's own recipe, and return the arguments."""
    recipe = RECIPES[model]
    commands = dry_run(script, cwd=tmp_path, MODEL=model, WEIGHTS="my weights", **OWN, **variables)
    assert commands
    parsed = [parse(command, monkeypatch) for command in commands]
    for command in parsed:
        args = command.args
        assert (args.model, args.image_size) == (model, recipe["image_size"])
        is_padded = args.pad if "pad" in args else args.if_padding
        assert is_padded == (recipe["fit"] == "pad") == (model == "IML_ViT")
        check_flags(command, recipe)
        if "output_dir" in args or "out" in args:
            assert (vars(args).get("out") or args.output_dir).startswith(f"runs/own-{model}")
    return parsed


def check_flags(command, recipe):
    """Compare all flags of the recipe that peers.yaml describes as needed by the script."""
    kinds = ["model", "train"] if command.script == "train" else ["model"]
    if command.script not in ("evaluate", "robust"):
        kinds.append("benco")
    if command.script in ("test", "test_robust", "test_save_images"):
        kinds.append("test")
    given = vars(command.args) | vars(command.model_args)
    places = {"weights": "my weights", "configs": TEMPLATES.parent / "configs"}
    places["image_size"] = recipe["image_size"]
    for name, value in [flag for kind in kinds for flag in recipe.get(kind, {}).items()]:
        if isinstance(value, str):
            value = type(given[name])(value.format(**places))
        assert given[name] == value, name


@pytest.mark.parametrize("model", RECIPES)
def test_training_uses_the_own_recipe(model, tmp_path, monkeypatch):
    recipe = RECIPES[model]
    (command,) = check_commands("train", model, tmp_path, monkeypatch, GPUS=str(recipe["gpus"]))
    args = vars(command.args)
    assert (args["batch_size"], args["epochs"]) == (recipe["batch"], recipe["epochs"])
    assert args["batch_size"] * args["accum_iter"] * recipe["gpus"] == recipe["total_batch"]


CASES = [("evaluate", "0"), ("robust", "0"), ("robust", "1"), ("save-images", "0")]
CASES += [("complexity", "0"), ("benco-test", "0")]


def check_test_scripts(model, tmp_path, monkeypatch):
    recipe = RECIPES[model]
    for script, benco in CASES:
        for command in check_commands(
            script, model, tmp_path, monkeypatch, BENCO=benco, SETS="CASIAv1"
        ):
            args = vars(command.args)
            if "if_padding" in args:
                assert args["edge_mask_width"] == recipe.get("benco", {}).get("edge_mask_width")
            if script == "evaluate":
                assert args["checkpoint"] == [
                    f"runs/own-{model}/checkpoint-{recipe['epochs'] - 1}.pth"
                ]


@pytest.mark.parametrize("model", ["MVSSNet", "IML_ViT"])
def test_other_scripts_use_the_own_recipe(model, tmp_path, monkeypatch):
    check_test_scripts(model, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("model", [name for name in RECIPES if name not in ("MVSSNet", "IML_ViT")])
def test_other_scripts_use_the_own_recipe_of_every_model(model, tmp_path, monkeypatch):
    check_test_scripts(model, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("model", "gpus", "batch", "accumulation"),
    [
        ("Mesorch", 8, 6, 2),  # 48 images on all GPUs, as in the template with 4 GPUs
        ("Mesorch", 1, 12, 8),  # at most 12 per GPU, as in the template
        ("MVSSNet", 4, 1, 2),  # 8 images per step
    ],
)
def test_batch_norm_sees_as_many_images_as_in_the_template_if_possible(
    model, gpus, batch, accumulation, tmp_path, monkeypatch
):
    (command,) = check_commands("train", model, tmp_path, monkeypatch, GPUS=str(gpus))
    assert (command.args.batch_size, command.args.accum_iter) == (batch, accumulation)


def test_variables_and_flags_replace_those_of_the_recipe(tmp_path, monkeypatch):
    variables = {"MODEL": "PSCC_Net", "IMAGE_SIZE": "64", "EPOCHS": "3", "TOTAL_BATCH": "4"}
    flags = ["--lr", "1e-3", "--pretrain_path=other.pth"]
    (words,) = dry_run("train", *flags, cwd=tmp_path, FIT="pad", **OWN, **variables)
    command = parse(words, monkeypatch)
    assert (command.args.lr, command.args.epochs, command.args.if_padding) == (1e-3, 3, True)
    assert command.args.batch_size * command.args.accum_iter == 4
    assert vars(command.model_args) == {"input_size": 64, "pretrain_path": "other.pth"}
    assert words.count("--lr") == 1


def test_common_protocol_can_pad_images(tmp_path, monkeypatch):
    peer = {"MODEL": "IML_ViT", "FIT": "pad"}
    (command,) = dry_run("train", cwd=tmp_path, **peer)
    args = parse(command, monkeypatch).args
    assert (args.if_padding, args.if_resizing, args.image_size, args.lr) == (True, False, 512, 1e-4)
    assert args.output_dir == "runs/cat-IML_ViT"
    for fit, flags in (("pad", (True, False)), ("resize", (False, True)), ("", (False, False))):
        (command,) = dry_run("evaluate", cwd=tmp_path, FIT=fit)
        args = parse(command, monkeypatch).args
        assert (args.pad, args.resize) == flags
    (command,) = dry_run("evaluate", cwd=tmp_path, MODEL="PSCC_Net", **OWN)
    args = parse(command, monkeypatch).args
    assert (args.pad, args.resize) == (False, True)  # As in the recipe.


@pytest.mark.parametrize(
    ("variables", "flags", "message"),
    [
        ({"RECIPE": "mine"}, (), "invalid RECIPE=mine: expected own or paper"),
        ({"FIT": "crop"}, (), "invalid FIT=crop: expected resize or pad"),
        ({"MODEL": "Mine", **OWN}, (), "peers.yaml has no recipe for MODEL=Mine; choose from Cat_"),
        ({"MODEL": "Mesorch", "IMAGE_SIZE": "64"}, (), "Mesorch works only at an image size of"),
        ({"MODEL": "IML_ViT"}, ("--if_padding",), "use the variable FIT=... instead of --if_pad"),
        ({"PHASE2": "a.pth"}, (), "MODEL=QMANet is not supported: PHASE2 applies to MODEL=Trufor"),
        ({"MODEL": "Mesorch", "BATCH": "5", **OWN}, (), "differs from the recipe of Mesorch"),
    ],
)
def test_unusable_recipe_is_rejected(variables, flags, message, tmp_path):
    line = error_message("train", *flags, "--dry-run", cwd=tmp_path, NOISEPRINT="", **variables)
    assert message in line


def test_missing_weights_are_named(tmp_path):
    for name in ("protocol_cat", "test_sets_train"):
        (tmp_path / f"data/{name}.json").parent.mkdir(exist_ok=True)
        (tmp_path / f"data/{name}.json").touch()
    line = error_message("train", cwd=tmp_path, MODEL="Mesorch", **OWN)
    assert "weights/mit_b3.pth does not exist; benco_configs/peers.yaml describes where" in line


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_placeholder_weights(folder)
    return folder


SMALLEST_SIZE = {"MSCDI_Net": 256}  # It has windows of 8x8 at 1/32 of the size; others: 64.


def own_arguments(model, weights, monkeypatch):
    """Parse a recipe as BenCo's train.py does; return its arguments and those of the model."""
    recipe = RECIPES[model]
    size = recipe["image_size"] if recipe.get("fixed_size") else SMALLEST_SIZE.get(model, 64)
    omitted = ("--init_weight_path", "--conv_pretrain")  # Their files are not available here.
    lines = recipe_lines(model, image_size=size, weights=str(weights), given=omitted)
    words = [line.partition(" ")[2] for line in lines if not line.startswith(("set ", "test "))]
    fit = "--if_padding" if recipe["fit"] == "pad" else "--if_resizing"
    own = ["train", "--model", model, "--image_size", str(size), fit, "--device", "cpu", *words]
    monkeypatch.setattr(sys, "argv", own)
    args, model_args = get_args_parser()
    names = inspect.signature(MODELS.get(model)).parameters
    return args, {k: v for k, v in {**vars(model_args), **vars(args)}.items() if k in names}


@pytest.fixture
def one_image_per_orientation(tmp_path):
    """Write two tampered images as a dataset of BenCo: 48x40 and 40x48 pixels."""
    for folder in ("Tp", "Gt"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    for i, (height, width) in enumerate([(48, 40), (40, 48)]):
        mask = np.zeros((height, width), np.uint8)
        mask[10:30, 10:30] = 255
        Image.fromarray(photograph(height, width, i)).save(tmp_path / f"set/Tp/{i}.png")
        Image.fromarray(mask).save(tmp_path / f"set/Gt/{i}.png")
    return tmp_path / "set"


# These models see a different batch with a different number of GPUs (docs/reproduce.md).
BATCH_NORM = {"Cat_Net", "IML_ViT", "MVSSNet", "PSCC_Net", "SparseViT", "Trufor"}


def train_one_step(model, weights, folder, monkeypatch):
    """Train a model for one step with its own recipe, on images that are resized or padded."""
    monkeypatch.setenv("TORCH_HOME", str(weights))
    args, arguments = own_arguments(model, weights, monkeypatch)
    network = MODELS.get(model)(**arguments).train()
    images = ManiDataset(
        str(folder),
        is_padding=args.if_padding,
        is_resizing=args.if_resizing,
        output_size=(args.image_size, args.image_size),
        edge_width=args.edge_mask_width,
    )
    batch = torch.utils.data.default_collate([images[0], images[1]])
    assert ("edge_mask" in batch) == (model in ("IML_ViT", "MVSSNet", "MSCDI_Net"))
    # Padded masks keep their 400 tampered pixels; resized ones grow with the image.
    tampered = int(batch["mask"][0].sum())
    assert (tampered == 400) == (model == "IML_ViT")
    has_batch_norm = any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
    assert has_batch_norm == (model in BATCH_NORM)
    parameters = [p for p in network.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=args.weight_decay)
    output = network(**batch, if_predcit_label=args.if_predict_label)
    assert output["pred_mask"].shape == (2, 1, args.image_size, args.image_size)
    output["backward_loss"].backward()
    assert torch.isfinite(output["backward_loss"])
    unused = [p for p in parameters if p.grad is None]
    # DistributedDataParallel needs this flag if parameters are unused.
    assert not unused or args.find_unused_parameters
    optimizer.step()
    used = [i for i, p in enumerate(parameters) if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(used) > len(parameters) / 4
    changed = [i for i in used if not torch.equal(before[i], parameters[i])]
    assert len(changed) > 0.9 * len(used)


REPRESENTATIVE = ("PSCC_Net", "IML_ViT")  # Resized, and padded with an edge mask.


@pytest.mark.parametrize("model", REPRESENTATIVE)
def test_one_step_with_the_own_recipe(model, weights, one_image_per_orientation, monkeypatch):
    train_one_step(model, weights, one_image_per_orientation, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("model", [name for name in RECIPES if name not in REPRESENTATIVE])
def test_one_step_of_every_other_model(model, weights, one_image_per_orientation, monkeypatch):
    if model == "Cat_Net":
        pytest.importorskip("jpegio", reason="CAT-Net needs jpegio, which is not installed")
    train_one_step(model, weights, one_image_per_orientation, monkeypatch)


def test_bare_state_dict_is_written_and_used_for_the_third_phase(tmp_path, monkeypatch, capsys):
    state = {"model.w": torch.arange(3.0)}
    torch.save({"model": state, "optimizer": {}, "epoch": 3}, tmp_path / "checkpoint-3.pth")
    variables = {"MODEL": "Trufor", "PHASE2": "checkpoint-3.pth", **OWN}
    convert, train = dry_run("train", cwd=tmp_path, **variables)
    assert convert[1:4] == ["-m", "qma_net", "convert"]
    monkeypatch.chdir(tmp_path)
    qma_net(convert[3:])
    assert capsys.readouterr().out == "runs/Trufor-phase-3/phase-2.pt\n"
    command = parse(train, monkeypatch)
    assert command.model_args.phase == 3
    written = torch.load(command.model_args.det_resume_ckpt, weights_only=True)
    assert written.keys() == {"model.w"}
    assert written["model.w"].tolist() == [0, 1, 2]
    assert command.args.output_dir == "runs/Trufor-phase-3"
    (tmp_path / "no-checkpoint.pth").write_bytes(b"")
    with pytest.raises(SystemExit, match="not a complete PyTorch file"):
        qma_net(["convert", "no-checkpoint.pth", "--state-dict", "--out", "x.pt"])
    assert not Path("x.pt").exists()
