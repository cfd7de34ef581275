"""Checks that need a CUDA device (``pytest -m gpu``)."""

import numpy as np
import pytest
import torch

from qma_net.modeling.losses import mask_and_edge_losses
from qma_net.modeling.noise import NoisePrint
from qma_net.weights.sources import load_noiseprint

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def cuda():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture
def tf32_everywhere():
    switches = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    previous = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = "tf32"
    yield
    for switch, precision in zip(switches, previous, strict=True):
        assert switch.fp32_precision == "tf32"  # The noise view has restored it.
        switch.fp32_precision = precision


@pytest.mark.parametrize("cudnn", [True, False])
@pytest.mark.parametrize("half", [None, torch.float16, torch.bfloat16])
def test_noiseprint_runs_in_float32_despite_tf32_and_autocast(tf32_everywhere, shared, half, cudnn):
    reference = np.load(shared("noiseprintpp/reference.npz"))
    image = torch.from_numpy(reference["image"]).permute(2, 0, 1)[None].cuda() / 256
    noiseprint = NoisePrint().cuda()
    load_noiseprint(noiseprint, shared("noiseprintpp/noiseprint++.th"))
    with (
        torch.backends.cudnn.flags(enabled=cudnn),
        torch.autocast("cuda", half, enabled=half is not None),
    ):
        error = noiseprint(image)[0, 0].cpu().numpy() - reference["noiseprint"]
    assert np.abs(error).max() < 1e-3
    assert np.sqrt((error**2).mean()) < 1e-4


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_training_step_in_mixed_precision_has_finite_gradients(build_tiny, half):
    model = build_tiny("b0").cuda().train()
    scaler = torch.amp.GradScaler("cuda", enabled=half is torch.float16)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    mask = (torch.rand(2, 1, 128, 128, device="cuda") > 0.7).double()
    with torch.autocast("cuda", half):
        seg_loss, edge_loss = mask_and_edge_losses(model(torch.randn(2, 3, 128, 128).cuda()), mask)
    scaler.scale(0.2 * seg_loss + 0.8 * edge_loss).backward()
    scaler.unscale_(optimizer)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_cpu_and_cuda_give_the_same_mask(build_tiny):
    model, image = build_tiny("b0").eval(), torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        expected = model(image).mask_logits
        actual = model.cuda()(image.cuda()).mask_logits.cpu()
    assert (actual - expected).abs().max() < 1e-2 * expected.abs().max()
