"""Optimizations for speed leave the results unchanged, or within a stated bound."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from conftest import TINY, photograph
from qma_net.inference.predictor import QMANetPredictor, normalized
from qma_net.modeling import backbone, config, noise, winograd
from qma_net.modeling.interaction import DFCM
from qma_net.modeling.losses import mask_and_edge_losses
from qma_net.modeling.noise import NoisePrint
from qma_net.weights.sources import load_noiseprint


def plain_chain(convs, image):
    """Apply the convolutions one after the other."""
    for conv in convs[:-1]:
        image = F.relu(conv(image))
    return convs[-1](image)


@pytest.fixture
def without_optimizations(monkeypatch):
    """Use plain convolutions, no strips and contiguous memory."""

    def switch_off(model):
        monkeypatch.setattr(noise, "streamed", plain_chain)
        monkeypatch.setattr(backbone, "STRIPS_FROM_VALUES", 2**40)
        return model.to(memory_format=torch.contiguous_format)

    return switch_off


@pytest.fixture
def small_strips(monkeypatch):
    """Use strips of a few rows, so that small images have many of them."""
    monkeypatch.setattr(winograd, "STRIP_PIXELS", 600)
    monkeypatch.setattr(backbone, "STRIPS_FROM_VALUES", 2**10)
    monkeypatch.setattr(backbone, "STRIP_VALUES", 2**12)


def test_winograd_transform_matches_manual_result():
    """F(4, 3) of the rows 1..6 with the kernel (1, 10, 100) gives four rows of the correlation."""
    rows, kernel = torch.arange(1.0, 7), torch.tensor([1.0, 10, 100])
    transform_in, transform_kernel, transform_out = (
        torch.tensor(table, dtype=torch.float64)
        for table in (winograd.IN, winograd.KERNEL, winograd.OUT)
    )
    products = (transform_kernel @ kernel.double()) * (transform_in @ rows.double())
    assert (transform_out @ products).tolist() == pytest.approx([321, 432, 543, 654])


@pytest.mark.parametrize(
    "shape", [(1, 3, 64, 48), (2, 3, 37, 50), (1, 3, 1, 9), (1, 3, 5, 600), (3, 3, 130, 7)]
)
def test_streamed_convolutions_equal_sequential_layers(shape, small_strips):
    """Compute in float64, so that only the order of summation differs."""
    noiseprint = NoisePrint().double()
    image = torch.rand(*shape).double()
    with torch.no_grad():
        expected = plain_chain(noiseprint.convs, image)
    assert (winograd.streamed(noiseprint.convs, image) - expected).abs().max() < 1e-12


def test_streamed_convolutions_may_end_with_many_channels():
    """The last layer uses Winograd, and its last group of rows is incomplete."""
    convs = [torch.nn.Conv2d(16, 16, 3, padding=1).double() for _ in range(3)]
    image = torch.rand(1, 16, 22, 9).double()
    with torch.no_grad():
        expected = plain_chain(convs, image)
    assert (winograd.streamed(convs, image) - expected).abs().max() < 1e-12


def test_streamed_noiseprint_is_accurate_in_float32(shared):
    """The published weights amplify rounding; plain convolutions vary with the CPU."""
    noiseprint = NoisePrint()
    load_noiseprint(noiseprint, shared("noiseprintpp/noiseprint++.th"))
    image = np.load(shared("noiseprintpp/reference.npz"))["image"]
    image = torch.from_numpy(image).permute(2, 0, 1)[None, :, :128, :128].float() / 256
    with torch.no_grad():
        streamed = winograd.streamed(noiseprint.convs, image).double()
        exact = plain_chain(noiseprint.double().convs, image.double())
    error = (streamed - exact).square().mean().sqrt()
    assert error < 5e-4 * exact.std()
    assert torch.corrcoef(torch.stack([streamed.flatten(), exact.flatten()]))[0, 1] > 0.999999


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (75, 101)])
def test_masks_and_edges_equal_those_without_optimizations(
    size, without_optimizations, build_tiny, noiseprint_file, request
):
    """The difference in float32 is below 1e-4."""
    model = build_tiny(views="srm,bayar,noiseprint", noiseprint_weights=str(noiseprint_file)).eval()
    image = normalized(photograph(*size)).expand(2, -1, -1, -1)
    with torch.no_grad():
        expected = without_optimizations(model)(image)
        request.getfixturevalue("monkeypatch").undo()
        request.getfixturevalue("small_strips")
        actual = model.to(memory_format=torch.channels_last)(image)
    assert expected.mask_logits.std() > 0.01
    assert (actual.mask_logits - expected.mask_logits).abs().max() < 1e-4
    for actual_edges, edges in zip(actual.edge_logits, expected.edge_logits, strict=True):
        assert (actual_edges - edges).abs().max() < 1e-4


def test_mixed_precision_changes_masks_by_less_than_two_percent(build_tiny, noiseprint_file):
    """Everything but the noise view runs in bfloat16."""
    model = build_tiny(views="srm,bayar,noiseprint", noiseprint_weights=str(noiseprint_file)).eval()
    image = normalized(photograph(96, 96))
    with torch.no_grad():
        expected = model(image).mask_logits.sigmoid()
        with torch.autocast("cpu", torch.bfloat16):
            actual = model(image).mask_logits.float().sigmoid()
    assert 0 < (actual - expected).abs().max() < 0.02


def test_mask_is_the_same_without_edges(build_tiny):
    model, image = build_tiny().eval(), torch.randn(1, 3, 64, 96)
    calls = []
    model.edge_head.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        with_edges, without = model(image), model(image, edges=False)
    assert len(calls) == 1
    assert without.edge_logits == []
    assert torch.equal(with_edges.mask_logits, without.mask_logits)


def test_maps_stay_channels_last(build_tiny):
    """No stage, interaction or convolution changes the memory layout."""
    model = build_tiny(drop_path=0.1).train()
    rearranged = []

    def check(name):
        def hook(module, inputs, output):
            outputs = output if isinstance(output, tuple) else (output,)
            if not all(o.is_contiguous(memory_format=torch.channels_last) for o in outputs):
                rearranged.append(name)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, backbone.Stage | DFCM | torch.nn.Conv2d):
            module.register_forward_hook(check(name))
    model(torch.randn(2, 3, 64, 96))
    # The decoder's maps come from a matrix product, so they are not channels-last.
    assert [name for name in rearranged if name != "decoder.predict"] == []


def test_gradient_checkpointing_saves_memory_and_keeps_the_gradients(build_tiny):
    model, image = build_tiny(drop_path=0.1).train(), torch.randn(2, 3, 64, 64)
    mask = (torch.rand(2, 1, 64, 64) > 0.7).double()

    def training_step(checkpointed):
        torch.manual_seed(1)  # for stochastic depth
        model.checkpoint_gradients(checkpointed)
        model.zero_grad()
        stored = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: (stored.append(t.numel()), t)[1], lambda t: t
        ):
            loss = sum(mask_and_edge_losses(model(image), mask))
        loss.backward()
        return sum(stored), [p.grad.clone() for p in model.parameters()]

    stored, expected = training_step(False)
    stored_less, actual = training_step(True)
    assert stored_less < 0.8 * stored  # Models with more blocks per stage save more.
    for gradient, expected_gradient in zip(actual, expected, strict=True):
        assert torch.allclose(gradient, expected_gradient, atol=1e-6)


def test_compiled_blocks_of_a_stage_share_a_graph(build_tiny, monkeypatch):
    """Both encoders together need four graphs, whatever their depth; masks stay within 1e-4."""
    monkeypatch.setitem(config.SIZES, "tiny", (TINY[0], (2, 1, 3, 1)))
    model, image = build_tiny(drop_path=0.1).eval(), torch.randn(1, 3, 64, 64)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    with torch.inference_mode():
        expected = model(image, edges=False).mask_logits
        model.compile_for_inference(backend=backend)
        actual = model(image, edges=False).mask_logits
    assert len(graphs) == 4
    assert (actual - expected).abs().max() < 1e-4


def test_predictor_supports_mixed_precision_and_compilation(build_tiny, monkeypatch):
    model, compiled = build_tiny().eval(), []
    monkeypatch.setattr(type(model), "compile_for_inference", lambda self: compiled.append(self))
    pixels = photograph(64, 64)
    expected = QMANetPredictor(model, image_size=64).predict(pixels).mask
    mixed = QMANetPredictor(model, image_size=64, mixed=True, compile=True).predict(pixels).mask
    assert compiled == [model]
    assert 0 < np.abs(mixed - expected).max() < 0.02
