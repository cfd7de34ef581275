"""The registered model: flags, BenCo's interface, data parallelism and overfitting."""

import inspect
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from conftest import photograph
from qma_net.modeling.config import ConfigError
from qma_net.modeling.qma_net import QMANetOutput

pytestmark = pytest.mark.filterwarnings("ignore:QMA-Net starts with random encoders")


@pytest.fixture
def tiny_qmanet():
    from qma_net.benco import QMANet

    return QMANet(size="tiny", views="srm,bayar", drop_path=0.0)


def benco_batch(count=2, side=64, seed=0):
    """Return a batch with the names, shapes and types of BenCo's data loader."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(count, 1, side, side, dtype=torch.float64)
    mask[..., side // 4 : side // 2, : side // 2] = 1
    return {
        "image": torch.randn(count, 3, side, side, generator=generator),
        "mask": mask,
        "label": torch.ones(count, dtype=torch.int64),
        "origin_shape": torch.full((count, 2), side),
        "shape": torch.full((count, 2), side),
        "name": [f"{i}.jpg" for i in range(count)],
    }


def test_model_is_registered_without_post_function():
    from IMDLBenCo.registry import MODELS, POSTFUNCS

    from qma_net.benco import QMANet

    assert MODELS.get("QMANet") is QMANet
    assert not POSTFUNCS.has("qmanet_post_func")


def test_benco_can_parse_every_flag():
    from IMDLBenCo.training_scripts.utils.misc import create_argparser

    from qma_net.benco import QMANet

    flags = inspect.signature(QMANet).parameters
    assert {p.annotation for p in flags.values()} <= {str, int, float}
    assert all(p.default is not inspect.Parameter.empty for p in flags.values())
    parsed = create_argparser(QMANet).parse_args(["--size", "b0", "--query_count", "8"])
    assert (parsed.size, parsed.query_count, parsed.alpha, parsed.beta) == ("b0", 8, 0.2, 0.8)


@pytest.mark.parametrize(
    "script", ["train", "test", "test_robust", "test_save_images", "test_complexity"]
)
def test_no_flag_equals_or_abbreviates_a_benco_flag(script):
    from importlib.util import find_spec

    from qma_net.benco import QMANet

    source = Path(find_spec(f"IMDLBenCo.training_scripts.{script}").origin).read_text(
        encoding="utf-8"
    )
    theirs = {word.split("'")[0] for word in source.split("add_argument('--")[1:]}
    assert "image_size" in theirs
    for ours in inspect.signature(QMANet).parameters:
        assert not [name for name in theirs if name.startswith(ours)]


@pytest.mark.parametrize("flag", ["gradient_checkpointing", "compile"])
def test_switches_other_than_0_and_1_are_refused(flag):
    from qma_net.benco import QMANet

    with pytest.raises(ConfigError, match=f"^got --{flag} 2, but it must be 0 or 1$"):
        QMANet(size="tiny", views="srm", **{flag: 2})


def test_training_outputs_match_benco_interface(tiny_qmanet):
    result = tiny_qmanet.train()(**benco_batch(), if_predcit_label=False)
    assert result["pred_mask"].shape == (2, 1, 64, 64)
    assert 0 <= result["pred_mask"].min() <= result["pred_mask"].max() <= 1
    assert result["pred_label"].shape == (2,)
    assert result["backward_loss"].shape == ()
    losses = {name: loss.item() for name, loss in result["visual_loss"].items()}
    expected = 0.2 * losses["seg_loss"] + 0.8 * losses["edge_loss"]
    assert losses["total_loss"] == pytest.approx(expected)
    assert result["backward_loss"].item() == pytest.approx(expected)
    assert all(image.ndim == 4 for image in result["visual_image"].values())


def test_constructor_defaults_equal_those_of_configuration_and_losses():
    from qma_net import build_qma_net
    from qma_net.benco import QMANet
    from qma_net.modeling.config import QMANetConfig
    from qma_net.modeling.losses import EDGE_WEIGHT, MASK_WEIGHT

    default = asdict(QMANetConfig())
    for build in (QMANet, build_qma_net):
        flags = {name: flag.default for name, flag in inspect.signature(build).parameters.items()}
        assert default.items() <= flags.items()
    flags = inspect.signature(QMANet).parameters
    assert (flags["alpha"].default, flags["beta"].default) == (MASK_WEIGHT, EDGE_WEIGHT)


def test_no_losses_are_computed_without_mask(tiny_qmanet):
    result = tiny_qmanet.eval()(benco_batch()["image"])
    assert "backward_loss" not in result
    assert result["visual_loss"] == {}


def test_loss_weights_are_configurable():
    from qma_net.benco import QMANet

    torch.manual_seed(0)
    model = QMANet(size="tiny", views="srm", drop_path=0.0, alpha=1.0, beta=0.0)
    result = model(**benco_batch())
    assert torch.equal(result["backward_loss"], result["visual_loss"]["seg_loss"])


def test_cross_entropy_is_added_to_dice_losses():
    from torch.nn import functional as F

    from qma_net.benco import QMANet

    results = []
    for bce in (0.0, 0.5):
        torch.manual_seed(0)
        model = QMANet(size="tiny", views="srm", drop_path=0.0, bce=bce).eval()
        results.append(model(**benco_batch()))
    (without, losses), mask = results, benco_batch()["mask"]
    assert "bce_loss" not in without["visual_loss"]
    expected = F.binary_cross_entropy(losses["pred_mask"].double(), mask)
    bce = losses["visual_loss"]["bce_loss"]
    assert bce.item() == pytest.approx(expected.item(), abs=1e-5)
    assert losses["backward_loss"] == without["backward_loss"] + 0.5 * bce


def test_dice_smoothing_is_configurable():
    from qma_net.benco import QMANet

    losses = []
    for smoothing in (0.003, 0.3):
        torch.manual_seed(0)
        model = QMANet(size="tiny", views="srm", drop_path=0.0, dice_smoothing=smoothing)
        batch = benco_batch()
        batch["mask"] *= 0
        losses.append(model(**batch)["visual_loss"])
    assert all(losses[1][name] < 0.9 * losses[0][name] for name in ("seg_loss", "edge_loss"))


def test_loss_ignores_padding(tiny_qmanet):
    batch = benco_batch()
    shape_mask = torch.zeros(2, 1, 64, 64, dtype=torch.float64)
    shape_mask[..., :48, :48] = 1
    batch["mask"] *= shape_mask
    inside = tiny_qmanet(**batch, shape_mask=shape_mask)
    batch["mask"][..., 50:, 50:] = 1  # Arbitrary values in the padding.
    again = tiny_qmanet(**batch, shape_mask=shape_mask)
    assert inside["backward_loss"].item() == pytest.approx(again["backward_loss"].item(), abs=1e-6)


def test_image_score_ignores_padding(tiny_qmanet):
    """The network marks the padding as tampered and the image as authentic."""
    shape_mask = torch.zeros(2, 1, 64, 64, dtype=torch.float64)
    shape_mask[..., :48, :48] = 1
    logits = torch.where(shape_mask > 0, -1.0, 9.0)
    tiny_qmanet.network.forward = lambda image: QMANetOutput(logits, [logits])
    batch = benco_batch()
    everywhere = tiny_qmanet(**batch)["pred_label"]
    inside = tiny_qmanet(**batch, shape_mask=shape_mask)["pred_label"]
    assert everywhere.tolist() == pytest.approx([torch.tensor(9.0).sigmoid().item()] * 2)
    assert inside.tolist() == pytest.approx([torch.tensor(-1.0).sigmoid().item()] * 2)


def test_image_score_is_the_highest_mean_of_a_square():
    """The shorter side of 80 pixels gives squares of 8x8 pixels at steps of 2."""
    from qma_net.modeling.qma_net import image_score

    mask = torch.zeros(5, 1, 80, 120)
    mask[0, 0, 10:18, 112:120] = 0.8  # One square.
    mask[1, 0, 11:19, 41:49] = 1  # Shifted by one pixel, so 7x7 of 8x8 pixels are in one square.
    mask[2, 0, 70:80, 0:4] = 1  # Half a square.
    mask[3, 0, ::9, ::9] = 1  # At most one pixel per square.
    expected = [0.8, 49 / 64, 0.5, 1 / 64, 0]
    assert image_score(mask).tolist() == pytest.approx(expected)
    assert image_score(mask.transpose(2, 3)).tolist() == pytest.approx(expected)
    assert image_score(mask[:, :, :3, :3]).tolist() == pytest.approx([0, 0, 0, 1 / 9, 0])
    narrow = torch.zeros_like(mask)
    narrow[..., :40] = 1  # Images of 80x40 pixels, with squares of 4x4 at steps of 1.
    assert image_score(mask, narrow).tolist() == pytest.approx([0, 0, 1, 1 / 16, 0])


def test_image_score_does_not_depend_on_the_amount_of_padding():
    """The padding was counted, so a small image with the value 1 everywhere had a score of 0.6."""
    from qma_net.modeling.qma_net import image_score

    image = torch.rand(1, 1, 64, 96)
    for values in (image, torch.ones_like(image)):
        padded, inside = torch.rand(1, 1, 1024, 1024), torch.zeros(1, 1, 1024, 1024)
        padded[..., :64, :96], inside[..., :64, :96] = values, 1
        expected = image_score(values)
        assert image_score(padded, inside).item() == pytest.approx(expected.item(), abs=1e-6)
        for dtype in (torch.float32, torch.float64):
            whole = image_score(values, torch.ones_like(values, dtype=dtype))
            assert torch.equal(whole, expected)


def _gradients(rank, world, path):
    from qma_net.benco import QMANet
    from qma_net.modeling import config

    # A file, because another process could take a port between its choice and its use.
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{path}.store", rank=rank, world_size=world
    )
    torch.set_num_threads(1)
    config.SIZES["tiny"] = ((16, 32, 80, 128), (1, 1, 1, 1))
    torch.manual_seed(0)
    model = QMANet(size="tiny", views="srm,bayar", drop_path=0.0).double().train()
    model = torch.nn.parallel.DistributedDataParallel(model)
    batch = benco_batch(4)
    batch["image"] = batch["image"].double()  # Avoids differences in rounding.
    share = slice(rank * 4 // world, (rank + 1) * 4 // world)
    batch = {name: value[share] for name, value in batch.items()}
    model(**batch)["backward_loss"].backward()
    if rank == 0:
        torch.save({n: p.grad for n, p in model.module.named_parameters()}, path)
    torch.distributed.destroy_process_group()


def test_gradients_of_two_processes_equal_those_of_one(tmp_path):
    """Two halves of a batch, averaged by DDP, give the gradients of the whole batch."""
    gradients = []
    for world in (1, 2):
        path = tmp_path / f"{world}.pth"
        mp.start_processes(_gradients, (world, path), nprocs=world, start_method="forkserver")
        gradients.append(torch.load(path, weights_only=True))
    single, double = gradients
    for name, expected in single.items():
        if "k_proj.bias" not in name:  # A softmax cancels key biases: only rounding is left.
            assert (double[name] - expected).abs().max() <= 1e-5 * expected.abs().max(), name


VARIANTS = [  # Without level 4 alone, which has only 2x2 positions for a 64x64 image.
    {"dfcm_stages": "none"},
    {"dfcm_stages": "4"},
    {"decoder": "conv"},
    {"decoder": "mlp"},
    {"query_count": 4},
    {"views": "srm"},
    {"views": "bayar"},
]


@pytest.mark.parametrize(
    "variant", [{}, *(pytest.param(choice, marks=pytest.mark.slow) for choice in VARIANTS)], ids=str
)
def test_model_overfits_eight_images(variant):
    """A b0 at 64x64 memorizes 8 images, also without the parts that Tables 2 and 9 remove."""
    import cv2

    from qma_net.benco import QMANet

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    images, masks = [], []
    for i in range(8):
        host, donor = photograph(64, 64, i), photograph(64, 64, 100 + i)
        mask = np.zeros((64, 64), np.uint8)
        centre = tuple(int(c) for c in rng.integers(18, 46, 2))
        cv2.ellipse(mask, centre, (14, 9), float(rng.uniform(0, 180)), 0, 360, 1, -1)
        images.append(np.where(mask[..., None] > 0, donor, host) / 255 * 4 - 2)
        masks.append(mask)
    image = torch.tensor(np.stack(images)).permute(0, 3, 1, 2).float()
    mask = torch.tensor(np.stack(masks))[:, None].double()
    chosen = {"size": "b0", "views": "srm,bayar", "drop_path": 0.0, **variant}
    model = QMANet(**chosen).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    best = 0.0
    for _ in range(250):
        result = model(image=image, mask=mask)
        optimizer.zero_grad()
        result["backward_loss"].backward()
        optimizer.step()
        marked = result["pred_mask"] > 0.5
        true = mask > 0.5
        f1 = 2 * (marked & true).sum((1, 2, 3)) / (marked.sum((1, 2, 3)) + true.sum((1, 2, 3)))
        best = max(best, f1.mean().item())
        if best > 0.95:
            break
    assert best > 0.95
