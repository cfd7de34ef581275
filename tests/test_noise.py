"""Noise view: SRM kernels, Bayar constraint, NoisePrint++ and its precision."""

import numpy as np
import pytest
import torch

from conftest import published_noiseprint
from qma_net.core.files import sha256
from qma_net.modeling.noise import MNFM, SRM, Bayar, NoisePrint, fold_noiseprint
from qma_net.weights.reading import read_checkpoint
from qma_net.weights.sources import NOISEPRINT_SHA256, load_noiseprint, noiseprint_state

HALF = (torch.float16, torch.bfloat16)


def test_srm_of_step_matches_manual_result():
    grey = torch.zeros(1, 3, 9, 9)
    grey[..., 4:] = 1 / 255  # One grey level from column 4 on.
    residual = SRM()(grey)[0, :, 4]  # A row far from the border.
    # 1/2 (1, -2, 1) on three equal channels: (x[c-1] - 2 x[c] + x[c+1]) * 3 / 2
    assert residual[2].tolist() == pytest.approx([0, 0, 0, 1.5, -1.5, 0, 0, 0, 0], abs=1e-5)
    # The columns of the second-order kernel sum to 0, so a vertical step leaves no residual.
    assert residual[0].abs().max() < 1e-5


def test_srm_is_zero_on_flat_areas_not_truncated_and_fixed():
    srm = SRM()
    assert srm(torch.full((1, 3, 16, 16), 0.7)).abs().max() < 1e-3
    dot = torch.zeros(1, 3, 9, 9)
    dot[..., 4, 4] = 1  # Every kernel has -1 in its centre, and 3 x 255 = 765.
    assert srm(dot)[0, :, 4, 4].tolist() == [-765, -765, -765]
    assert srm(dot)[0, :, 4, 5].tolist() == [382.5, 510, 382.5]  # 2/4, 8/12, 1/2
    assert not list(srm.parameters())
    assert not srm.state_dict()


def constraint_violation(bayar: Bayar) -> float:
    kernels = bayar.kernels()
    rest = kernels.flatten(2).sum(-1) - kernels[:, :, 2, 2]
    return max((kernels[:, :, 2, 2] + 1).abs().max().item(), (rest - 1).abs().max().item())


def test_bayar_constraint_holds_during_training():
    bayar = Bayar()
    optimizer = torch.optim.AdamW(bayar.parameters(), 0.1, weight_decay=0.5)
    assert constraint_violation(bayar) < 1e-6
    before = bayar.kernels().detach().clone()
    for _ in range(10):
        optimizer.zero_grad()
        (bayar(torch.rand(2, 3, 16, 16)) - 1).square().mean().backward()
        optimizer.step()
        assert constraint_violation(bayar) < 1e-6
    assert (bayar.kernels() - before).abs().max() > 0.01


def test_bayar_constraint_is_differentiable():
    bayar = Bayar().double()
    assert torch.autograd.gradcheck(
        lambda w: torch.func.functional_call(bayar, {"weight": w}, torch.ones(1, 3, 6, 6).double()),
        bayar.weight,
    )


def test_bayar_is_zero_on_flat_areas():
    assert Bayar()(torch.full((1, 3, 16, 16), 0.4)).abs().max() < 1e-6


def test_folded_noiseprint_equals_published_network():
    published = published_noiseprint().double()
    folded = NoisePrint().double()
    folded.load_state_dict(fold_noiseprint(published.state_dict()))
    image = torch.rand(2, 3, 24, 40).double()
    with torch.no_grad():
        assert (folded(image) - published(image)).abs().max() < 1e-9


def test_published_noiseprint_reproduces_the_authors_output(shared):
    path = shared("noiseprintpp/noiseprint++.th")
    assert sha256(path) == NOISEPRINT_SHA256
    published = published_noiseprint().double()
    published.load_state_dict(read_checkpoint(path)["network"])
    folded = NoisePrint().double()
    folded.load_state_dict(noiseprint_state(path))
    reference = np.load(shared("noiseprintpp/reference.npz"))
    image = torch.from_numpy(reference["image"]).permute(2, 0, 1)[None] / 256
    with torch.no_grad():
        assert (folded(image.double()) - published(image.double())).abs().max() < 1e-9
    noiseprint = NoisePrint()
    load_noiseprint(noiseprint, path)
    for half in (None, *HALF):
        with torch.autocast("cpu", half, enabled=half is not None):
            error = noiseprint(image)[0, 0].numpy() - reference["noiseprint"]
        assert np.abs(error).max() < 1e-3
        assert np.sqrt((error**2).mean()) < 1e-4


def loaded_mnfm(noiseprint_file) -> MNFM:
    mnfm = MNFM(("srm", "bayar", "noiseprint"))
    load_noiseprint(mnfm.noiseprint, noiseprint_file)
    return mnfm


@pytest.mark.parametrize("half", HALF)
def test_noise_view_ignores_autocast(half, noiseprint_file):
    mnfm, image = loaded_mnfm(noiseprint_file), torch.randn(1, 3, 64, 64)
    expected, expected_noiseprint = mnfm(image), mnfm.noiseprint(image)
    with torch.autocast("cpu", half):
        assert torch.equal(mnfm(image), expected)
        assert torch.equal(mnfm.noiseprint(image), expected_noiseprint)


@pytest.mark.parametrize("half", HALF)
def test_noise_view_of_half_precision_model_stays_in_float32(half, noiseprint_file):
    mnfm, image = loaded_mnfm(noiseprint_file), torch.randn(1, 3, 64, 64).to(half)
    expected = mnfm(image.float())
    mnfm = mnfm.to(half)
    assert {p.dtype for p in mnfm.parameters()} == {torch.float32}
    assert mnfm(image).dtype == half
    assert torch.equal(mnfm(image), expected.to(half))


def test_training_does_not_change_noiseprint(noiseprint_file, build_tiny):
    model = build_tiny(views="srm,bayar,noiseprint", noiseprint_weights=str(noiseprint_file))
    noiseprint = model.noise_view.noiseprint
    before = {name: tensor.clone() for name, tensor in noiseprint.state_dict().items()}
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model).train(True)
    optimizer = torch.optim.AdamW(model.parameters(), 0.1, weight_decay=0.5)
    model(torch.randn(2, 3, 64, 64)).mask_logits.sum().backward()
    optimizer.step()
    after = model.noise_view.noiseprint.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_mnfm_reverts_the_normalization(noiseprint_file):
    from qma_net.modeling.noise import IMAGENET_MEAN, IMAGENET_STD

    mnfm = loaded_mnfm(noiseprint_file)
    pixels = torch.randint(0, 256, (1, 3, 32, 32)).float()
    inputs = {}
    mnfm.noiseprint.register_forward_pre_hook(lambda _, args: inputs.update(noiseprint=args[0]))
    mnfm.srm.register_forward_pre_hook(lambda _, args: inputs.update(srm=args[0]))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    mnfm((pixels / 255 - mean) / std)
    assert (inputs["noiseprint"] * 256 - pixels).abs().max() < 1e-3
    assert (inputs["srm"] * 255 - pixels).abs().max() < 1e-3


def test_fusion_has_one_input_channel_per_view_channel():
    assert MNFM(("srm",)).fusion.in_channels == 3
    assert MNFM(("srm", "bayar", "noiseprint")).fusion.in_channels == 7
