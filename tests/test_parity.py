"""What is done for speed changes nothing that is computed, or by a stated bound."""

from functools import partialmethod

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from conftest import TINY, photograph
from qma_net.inference.predictor import QMANetPredictor, normalised
from qma_net.modeling import backbone, config, noise, winograd
from qma_net.modeling.interaction import DFCM
from qma_net.modeling.losses import mask_and_edge_losses
from qma_net.modeling.noise import NoisePrint
from qma_net.weights.sources import load_noiseprint


def torch_compile(module, backend, **options):
    module._compiled_call_impl = torch.compile(module._call_impl, backend=backend, **options)


def plain_chain(convs, image):
    """The chain as it is defined, layer by layer."""
    for conv in convs[:-1]:
        image = F.relu(conv(image))
    return convs[-1](image)


@pytest.fixture
def as_written(monkeypatch):
    """Everything off: plain convolutions, no strips."""

    def turn_off(model):
        monkeypatch.setattr(noise, "streamed", plain_chain)
        monkeypatch.setattr(backbone, "STRIPS_FROM_VALUES", 2**40)
        return model.to(memory_format=torch.contiguous_format)

    return turn_off


@pytest.fixture
def small_strips(monkeypatch):
    """Strips of a few rows, so that small images have many."""
    monkeypatch.setattr(winograd, "STRIP_PIXELS", 600)
    monkeypatch.setattr(backbone, "STRIPS_FROM_VALUES", 2**10)
    monkeypatch.setattr(backbone, "STRIP_VALUES", 2**12)


def test_winograd_by_hand():
    """F(4, 3) of the rows 1..6 with the kernel (1, 10, 100): four rows of the correlation."""
    rows, kernel = torch.arange(1.0, 7), torch.tensor([1.0, 10, 100])
    into, of_kernel, out = (
        torch.tensor(table, dtype=torch.float64)
        for table in (winograd.IN, winograd.KERNEL, winograd.OUT)
    )
    got = out @ ((of_kernel @ kernel.double()) * (into @ rows.double()))
    assert got.tolist() == pytest.approx([321, 432, 543, 654])


@pytest.mark.parametrize(
    "shape", [(1, 3, 64, 48), (2, 3, 37, 50), (1, 3, 1, 9), (1, 3, 5, 600), (3, 3, 130, 7)]
)
def test_the_stream_is_the_chain(shape, small_strips):
    """Exactly, but for the order of summation: seen in float64, with strips of a few rows."""
    noiseprint = NoisePrint().double()
    image = torch.rand(*shape).double()
    with torch.no_grad():
        expected = plain_chain(noiseprint.convs, image)
    assert (winograd.streamed(noiseprint.convs, image) - expected).abs().max() < 1e-12


def test_the_stream_may_end_wide():
    """A last layer of many channels, whose last group of rows is not whole."""
    convs = [torch.nn.Conv2d(16, 16, 3, padding=1).double() for _ in range(3)]
    image = torch.rand(1, 16, 22, 9).double()
    with torch.no_grad():
        expected = plain_chain(convs, image)
    assert (winograd.streamed(convs, image) - expected).abs().max() < 1e-12


def test_the_stream_is_as_exact_as_the_chain(shared):
    """The published weights amplify rounding: the stream must not be further from float64."""
    noiseprint = NoisePrint()
    load_noiseprint(noiseprint, shared("noiseprintpp/noiseprint++.th"))
    image = np.load(shared("noiseprintpp/reference.npz"))["image"]
    image = torch.from_numpy(image).permute(2, 0, 1)[None, :, :128, :128].float() / 256
    with torch.no_grad():
        plain = plain_chain(noiseprint.convs, image).double()
        streamed = winograd.streamed(noiseprint.convs, image).double()
        exact = plain_chain(noiseprint.double().convs, image.double())
    error = (streamed - exact).square().mean().sqrt()
    assert error < 1.2 * (plain - exact).square().mean().sqrt()
    assert torch.corrcoef(torch.stack([streamed.flatten(), exact.flatten()]))[0, 1] > 0.999999


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (75, 101)])
def test_masks_and_edges_are_as_written(size, as_written, build_tiny, noiseprint_file, request):
    """float32, within 1e-4 of the model with everything off."""
    model = build_tiny(views="srm,bayar,noiseprint", noiseprint_weights=str(noiseprint_file)).eval()
    image = normalised(photograph(*size)).expand(2, -1, -1, -1)
    with torch.no_grad():
        expected = as_written(model)(image)
        request.getfixturevalue("monkeypatch").undo()
        request.getfixturevalue("small_strips")
        got = model.to(memory_format=torch.channels_last)(image)
    assert expected.mask_logits.std() > 0.01
    assert (got.mask_logits - expected.mask_logits).abs().max() < 1e-4
    for one, other in zip(got.edge_logits, expected.edge_logits, strict=True):
        assert (one - other).abs().max() < 1e-4


def test_mixed_precision_stays_within_its_bound(build_tiny, noiseprint_file):
    """bfloat16 around the float32 noise view: probabilities within 0.02 of float32's."""
    model = build_tiny(views="srm,bayar,noiseprint", noiseprint_weights=str(noiseprint_file)).eval()
    image = normalised(photograph(96, 96))
    with torch.no_grad():
        expected = model(image).mask_logits.sigmoid()
        with torch.autocast("cpu", torch.bfloat16):
            got = model(image).mask_logits.float().sigmoid()
    assert 0 < (got - expected).abs().max() < 0.02


def test_without_edges_the_mask_is_the_same(build_tiny):
    model, image = build_tiny().eval(), torch.randn(1, 3, 64, 96)
    called = []
    model.edge_head.register_forward_hook(lambda *_: called.append(1))
    with torch.no_grad():
        with_edges, without = model(image), model(image, edges=False)
    assert len(called) == 1
    assert without.edge_logits == []
    assert torch.equal(with_edges.mask_logits, without.mask_logits)


def test_maps_stay_channels_last(build_tiny):
    """From end to end: no stage, interaction or convolution turns the layout over."""
    model = build_tiny(drop_path=0.1).train()
    turned = []

    def look(name):
        def hook(module, inputs, output):
            outputs = output if isinstance(output, tuple) else (output,)
            if not all(o.is_contiguous(memory_format=torch.channels_last) for o in outputs):
                turned.append(name)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, backbone.Stage | DFCM | torch.nn.Conv2d):
            module.register_forward_hook(look(name))
    model(torch.randn(2, 3, 64, 96))
    # one channel and 2x3 pixels are every layout at once; the decoder's maps are (B, N, h, w)
    assert [name for name in turned if name != "decoder.predict"] == []


def test_checkpointed_gradients_are_the_same(build_tiny):
    model, image = build_tiny(drop_path=0.1).train(), torch.randn(2, 3, 64, 64)
    mask = (torch.rand(2, 1, 64, 64) > 0.7).double()

    def step(checkpointed):
        torch.manual_seed(1)  # stochastic depth
        model.checkpoint_gradients(checkpointed)
        model.zero_grad()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: (kept.append(t.numel()), t)[1], lambda t: t
        ):
            loss = sum(mask_and_edge_losses(model(image), mask))
        loss.backward()
        return sum(kept), [p.grad.clone() for p in model.parameters()]

    kept, expected = step(False)
    kept_less, got = step(True)
    assert kept_less < 0.8 * kept  # one block to a stage: the least that can be saved
    for one, other in zip(got, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_compiled_blocks_share_a_graph_per_stage(build_tiny, monkeypatch):
    """Within 1e-4, one graph for each of the four stages of both backbones, whatever the depth."""
    monkeypatch.setitem(config.SIZES, "tiny", (TINY[0], (2, 1, 3, 1)))
    model, image = build_tiny(drop_path=0.1).eval(), torch.randn(1, 3, 64, 64)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch_compile, backend))
    with torch.inference_mode():
        expected = model(image, edges=False).mask_logits
        model.compile_for_inference()
        got = model(image, edges=False).mask_logits
    assert len(graphs) == 4
    assert (got - expected).abs().max() < 1e-4


def test_the_predictor_can_be_mixed_and_compiled(build_tiny, monkeypatch):
    model, compiled = build_tiny().eval(), []
    monkeypatch.setattr(type(model), "compile_for_inference", lambda self: compiled.append(self))
    pixels = photograph(64, 64)
    expected = QMANetPredictor(model, image_size=64).predict(pixels).mask
    mixed = QMANetPredictor(model, image_size=64, mixed=True, compile=True).predict(pixels).mask
    assert compiled == [model]
    assert 0 < np.abs(mixed - expected).max() < 0.02
