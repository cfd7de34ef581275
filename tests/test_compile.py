"""Compiled training, the conversion of weights under autocast, and the count of kernels."""

import json
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn

from benchmarks.launches import Kernels, launches
from launching import MODEL, SIZE, start, write_tampered_set
from qma_net.benco.model import QMANet
from qma_net.modeling import config, qma_net
from qma_net.modeling.compilation import CompilationError
from qma_net.modeling.decoder import PredictHead
from qma_net.modeling.losses import mask_and_edge_losses


@pytest.fixture
def build_deep(build_tiny, monkeypatch):
    """Build models in which stages 1 and 3 have several blocks."""
    monkeypatch.setitem(config.SIZES, "tiny", (config.SIZES["tiny"][0], (2, 1, 3, 1)))
    torch._dynamo.reset()
    return partial(build_tiny, drop_path=0.1)


def losses(model, steps, checkpointed=False, precision=None):
    """Train on the same batch and return the losses."""
    torch.manual_seed(3)
    image, mask = torch.randn(2, 3, 64, 64), (torch.rand(2, 1, 64, 64) > 0.7).double()
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-3)
    model.checkpoint_gradients(checkpointed)
    values = []
    for _ in range(steps):
        with torch.autocast("cpu", precision, enabled=precision is not None):
            loss = sum(mask_and_edge_losses(model(image), mask))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    return values


@pytest.mark.parametrize(
    ("checkpointed", "precision"),
    [
        (True, torch.bfloat16),
        pytest.param(False, torch.bfloat16, marks=pytest.mark.slow),
        pytest.param(False, None, marks=pytest.mark.slow),
    ],
)
def test_compiled_parts_share_graphs_and_train_like_eager_ones(build_deep, checkpointed, precision):
    """Each stage, interaction, aggregation, MLP, the decoder and the edge head has one graph."""
    model = build_deep()
    names, start = list(model.state_dict()), {k: v.clone() for k, v in model.state_dict().items()}
    expected = losses(model, 2, checkpointed, precision)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model.load_state_dict(start)
    model.compile_for_training(backend=backend)
    assert losses(model, 2, checkpointed, precision) == pytest.approx(expected, abs=1e-4)
    # On a CPU, autocast leaves norms in bfloat16, so the first blocks of stages 1 and 3 differ.
    assert len(graphs) == (17 if precision is None else 19)
    assert list(model.state_dict()) == names


def test_losses_are_compiled(build_tiny):
    torch._dynamo.reset()
    names = []

    def backend(graph, inputs):
        names.extend(node.target for node in graph.graph.nodes if node.op == "call_method")
        return graph.forward

    model = QMANet(size="tiny", views="srm", init_from=build_tiny(views="srm")).train()
    torch.manual_seed(3)
    image, mask = torch.randn(2, 3, 64, 64), (torch.rand(2, 1, 64, 64) > 0.7).double()
    expected = model(image, mask)
    model.compile_for_training(backend=backend)
    actual = model(image, mask)
    torch.testing.assert_close(actual["backward_loss"], expected["backward_loss"])
    assert "square" in names  # In the Dice loss.


@pytest.mark.slow
def test_losses_of_compiled_training_match_eager_ones(build_deep):
    model = build_deep()
    start = {k: v.clone() for k, v in model.state_dict().items()}
    expected = losses(model, 20)
    model.load_state_dict(start)
    model.compile_for_training()
    assert losses(model, 20) == pytest.approx(expected, abs=1e-4)


def test_missing_compiler_is_reported_in_one_line(monkeypatch):
    from torch._inductor import config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(inductor, "fx_graph_cache", False)
    torch._dynamo.reset()
    model = QMANet(size="tiny", views="srm", compile=1)
    with pytest.raises(CompilationError, match=r"^torch.compile needs a C\+\+ compiler.* omit"):
        model(torch.randn(1, 3, 64, 64))


def test_other_backend_failures_are_reported_in_one_line(build_tiny):
    def backend(graph, inputs):
        raise OSError("disk full\nsecond line")

    model = build_tiny()
    torch._dynamo.reset()
    model.compile_for_training(backend=backend)
    with pytest.raises(CompilationError, match=r"failed \(OSError: disk full\); omit --compile$"):
        model(torch.randn(1, 3, 64, 64))


def call_with_more_sizes_than_graphs(model):
    generator = torch.Generator().manual_seed(0)
    sizes = [(1, 3, 64, 32 * count) for count in (1, 2, 3, 4)]
    with torch._dynamo.config.patch(recompile_limit=8):  # Two sizes in four stages.
        return [model(torch.randn(size, generator=generator)).mask_logits for size in sizes]


def test_prediction_continues_without_compilation_after_the_limit(build_tiny):
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model = build_tiny().eval()
    with torch.inference_mode():
        expected = call_with_more_sizes_than_graphs(model)
        model.compile_for_inference(backend=backend)
        actual = call_with_more_sizes_than_graphs(model)
    assert len(graphs) == 8
    for mask, expected_mask in zip(actual, expected, strict=True):
        torch.testing.assert_close(mask, expected_mask)


def test_training_with_more_sizes_than_the_limit_is_reported_in_one_line(build_tiny):
    torch._dynamo.reset()
    model = build_tiny()
    model.compile_for_training(backend="eager")
    with pytest.raises(CompilationError, match=r"reached its limit of graphs.*; use fewer"):
        call_with_more_sizes_than_graphs(model)


def gradients(model, image, mask):
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16), (kernels := Kernels()):
        output = model(image)
        loss = sum(mask_and_edge_losses(output, mask))
    with kernels:
        loss.backward()
    return kernels.by_operator, [loss.detach(), *(p.grad.clone() for p in model.parameters())]


def test_weights_are_converted_together_without_changing_gradients(build_tiny, monkeypatch):
    model, image = build_tiny().train(), torch.randn(2, 3, 64, 64)
    mask = (torch.rand(2, 1, 64, 64) > 0.7).double()
    counted, actual = gradients(model, image, mask)
    assert all(isinstance(p, nn.Parameter) for p in model.parameters())
    monkeypatch.setattr(qma_net, "cast_weights", lambda parts: nullcontext())
    counted_separately, expected = gradients(model, image, mask)
    for tensor, expected_tensor in zip(actual, expected, strict=True):
        assert torch.equal(tensor, expected_tensor)
    weights = sum(
        len(list(m.parameters(recurse=False)))
        for part in model._parts()
        for m in part.modules()
        if isinstance(m, nn.Linear | nn.Conv2d) and not isinstance(m, PredictHead)
    )
    # Each weight had a cast, and so had its gradient.
    assert counted_separately["_to_copy"] - counted["_to_copy"] == 2 * weights


def test_kernels_of_a_linear_layer_under_autocast():
    """Input, weight and bias are converted, then multiplied; the transposed weight is a view."""
    layer, tokens = nn.Linear(8, 8), torch.zeros(1, 4, 8)
    with torch.autocast("cpu", torch.bfloat16), (kernels := Kernels()):
        layer(tokens)
    assert kernels.by_operator == {"_to_copy": 3, "addmm": 1}


def test_kernels_of_operators_on_lists():
    """A kernel takes 110 tensors of one list, 64 of two, or 320 blocks of 65,536 numbers."""
    small, large = torch.zeros(10), torch.zeros(65536 * 321)
    multiply, copy = torch.ops.aten._foreach_mul_.Scalar, torch.ops.aten._foreach_copy_.default
    assert launches(multiply, ([small] * 110, 2.0)) == 1
    assert launches(multiply, ([small] * 111, 2.0)) == 2
    assert launches(copy, ([small] * 65, [small] * 65)) == 2
    assert launches(multiply, ([large], 2.0)) == 2
    assert launches(torch.ops.aten.mul.Tensor, (small, small)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_compiled_training_resumes(processes, tmp_path):
    """Train for two epochs, then resume for a third, with accumulation and checkpointing."""
    write_tampered_set(tmp_path, count=8)
    command = ["train", *MODEL, *SIZE, "--compile", "1", "--data_path", "set"]
    command += ["--test_data_path", "sets.json", "--output_dir", "run", "--log_dir", "run"]
    command += ["--batch_size", "2", "--test_batch_size", "2", "--accum_iter", "2"]
    command += ["--drop_path", "0.1", "--device", "cpu", "--warmup_epochs", "0", "--lr", "1e-4"]
    start([*command, "--epochs", "2"], tmp_path, processes, timeout=1500)
    start([*command, "--epochs", "3", "--resume", "auto"], tmp_path, processes, timeout=1500)
    log = [json.loads(line) for line in (tmp_path / "run/log.txt").read_text().splitlines()]
    assert [row["epoch"] for row in log] == [0, 1, 2]
    state = torch.load(tmp_path / "run/checkpoint-2.pth", weights_only=False)["model"]
    assert not [name for name in state if "_orig_mod" in name]
