"""The composed model: parameter count, shapes, gradients, precision and error messages."""

import re

import pytest
import torch
import yaml

from qma_net.build import build_qma_net
from qma_net.core.files import config_path
from qma_net.modeling.aggregation import MFAM, MLP, TamperQueries
from qma_net.modeling.config import SIZES, QMANetConfig
from qma_net.modeling.decoder import DCM, ESM, QuerySelection
from qma_net.modeling.interaction import GCM
from qma_net.modeling.losses import mask_and_edge_losses
from qma_net.modeling.qma_net import QMANetModel

ABLATIONS = {
    "paper": {},
    **{
        entry["name"]: entry["flags"]
        for entry in yaml.safe_load(config_path("ablations.yaml").read_text())
        if entry["flags"] and entry["flags"].get("views") != "noiseprint"  # needs weights
    },
}


def parameter_count(module) -> int:
    return sum(p.numel() for p in module.parameters())


def training_loss(model, image, mask):
    seg_loss, edge_loss = mask_and_edge_losses(model(image), mask)
    loss = 0.2 * seg_loss + 0.8 * edge_loss
    loss.backward()
    return loss


def test_default_model_has_the_parameter_count_of_the_paper():
    with torch.device("meta"):
        model = QMANetModel.from_config(QMANetConfig())
    assert parameter_count(model) / 1e6 == pytest.approx(114.0, rel=0.005)
    assert (
        parameter_count(model.rgb_backbone) == parameter_count(model.noise_backbone) == 44_072_128
    )
    assert parameter_count(model.noise_view.noiseprint) == 556_289


@pytest.mark.parametrize("size", ["b0", "b1", "b2", "b3", "b4", "b5"])
def test_every_size_can_be_built(size):
    with torch.device("meta"):
        model = QMANetModel.from_config(QMANetConfig(size=size))
    channels, depths = SIZES[size]
    assert [len(stage.blocks) for stage in model.rgb_backbone.stages] == list(depths)
    assert [dcm[-1].num_channels for dcm in model.decoder.fuse] == list(channels)


def test_block_and_stage_norms_have_the_epsilon_of_the_official_segformer():
    with torch.device("meta"):
        stages = QMANetModel.from_config(QMANetConfig()).rgb_backbone.stages
    norms = [m for m in stages.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert sum(m.eps == 1e-6 for m in norms) == 60
    assert {m.eps for m in norms} == {1e-6, 1e-5}


@pytest.mark.parametrize(
    "size", ["tiny", *(pytest.param(size, marks=pytest.mark.slow) for size in ("b0", "b3"))]
)
@pytest.mark.parametrize("choices", ABLATIONS.values(), ids=ABLATIONS)
def test_every_parameter_receives_a_gradient(size, choices, build_tiny):
    """After one step at 128x128, every gradient is finite and not all zero."""
    model = build_tiny(size, **choices).train()
    mask = torch.zeros(2, 1, 128, 128)
    mask[0, :, 30:70, 20:90] = mask[1, :, 64:] = 1
    training_loss(model, torch.randn(2, 3, 128, 128), mask)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if "backbone" not in name or "k_proj.bias" not in name:  # The softmax cancels them.
            assert parameter.grad.abs().max() > 0, name


def test_only_noiseprint_is_frozen(build_tiny, noiseprint_file):
    model = build_tiny(views="noiseprint,srm", noiseprint_weights=str(noiseprint_file)).train()
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert all(name.startswith("noise_view.noiseprint.") for name in frozen)
    assert len(frozen) == 34
    training_loss(model, torch.randn(1, 3, 128, 128), torch.ones(1, 1, 128, 128))
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_training_step_in_half_precision_stays_finite(half, build_tiny):
    """The features are so large that their product with the queries would overflow."""
    model = build_tiny().train()
    for stage in (*model.rgb_backbone.stages, *model.noise_backbone.stages):
        stage.layer_norm.weight.data *= 300
    for dcm in model.decoder.fuse:
        dcm[-1].weight.data *= 4e3
    select, seen = model.decoder.select[3], []
    select.register_forward_pre_hook(lambda _, args: seen.append(args))
    with torch.autocast("cpu", half):
        loss = training_loss(
            model, torch.randn(2, 3, 64, 64), (torch.rand(2, 1, 64, 64) > 0.7).double()
        )
    queries, features = seen[0]
    unprotected = select.norm(queries.float()) @ features.float().flatten(2)
    assert unprotected.abs().max() > torch.finfo(torch.float16).max
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("size", [(32, 32), (333, 517), (1024, 768)])
def test_mask_has_the_size_of_the_image(size, build_tiny):
    model = build_tiny().eval()
    with torch.no_grad():
        output = model(torch.randn(1, 3, *size))
    assert output.mask_logits.shape == (1, 1, *size)
    padded = [side + -side % 32 for side in size]
    (edge,) = output.edge_logits
    assert edge.shape == (1, 1, padded[0] // 4, padded[1] // 4)


def test_image_that_is_too_small_or_not_rgb_is_rejected(build_tiny):
    with pytest.raises(ValueError, match=r"31x31 pixels.*at least 32x32; enlarge"):
        build_tiny()(torch.randn(1, 3, 31, 31))
    with pytest.raises(
        ValueError, match=r"shape \(1, 1, 64, 64\), expected \(B, 3, H, W\); convert"
    ):
        build_tiny()(torch.randn(1, 1, 64, 64))


def test_noise_view_is_computed_before_padding(build_tiny):
    model, seen = build_tiny().eval(), []
    model.noise_view.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2:]))
    model(torch.randn(1, 3, 40, 70))
    assert seen == [(40, 70)]


def test_padding_repeats_the_last_row_and_column(build_tiny):
    """A reflection would mirror the JPEG grid."""
    model, seen = build_tiny().eval(), []
    model.rgb_backbone.stages[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    image = torch.randn(1, 3, 40, 70)
    model(image)
    (padded,) = seen
    assert padded.shape[2:] == (64, 96)
    assert torch.equal(padded[..., :40, :70], image)
    assert torch.equal(padded[..., 40:, :70], image[..., -1:, :].expand(-1, -1, 24, -1))
    assert torch.equal(padded[..., 70:], padded[..., 69:70].expand(-1, -1, -1, 26))


def test_images_of_a_batch_are_independent(build_tiny):
    model, images = build_tiny().eval(), torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        together = model(images).mask_logits
        separate = torch.cat([model(image[None]).mask_logits for image in images])
    assert (together - separate).abs().max() < 1e-4


def test_next_stage_receives_the_output_of_dfcm(build_tiny):
    model, seen = build_tiny().eval(), {}
    model.interactions[0].register_forward_hook(
        lambda _, args, out: seen.update(r=out[0], n=out[1])
    )
    model.rgb_backbone.stages[1].register_forward_pre_hook(lambda _, a: seen.update(r_in=a[0]))
    model.noise_backbone.stages[1].register_forward_pre_hook(lambda _, a: seen.update(n_in=a[0]))
    model(torch.randn(1, 3, 64, 64))
    assert seen["r_in"] is seen["r"]
    assert seen["n_in"] is seen["n"]


def test_both_directions_of_dfcm_share_their_group_convolutions(build_tiny):
    """Equation 4 writes G without a modality: a stage has one for each of Q, K and V."""
    dfcm, called = build_tiny().interactions[1], []
    convolutions = [module for module in dfcm.modules() if isinstance(module, GCM)]
    assert len(convolutions) == 3
    for g in convolutions:
        g.register_forward_hook(lambda g, args, out: called.append(g))
    dfcm(*torch.randn(2, 1, 32, 8, 8))
    assert [called.count(g) for g in convolutions] == [2, 2, 2]


def test_receptive_field_of_dcm_has_no_gaps():
    """Rates 1, 2 and 5 reach all pixels within 8 to every side; rate 2 alone would skip 3/4."""
    dcm = DCM(8).double()
    convolutions = [layer for layer in dcm if isinstance(layer, torch.nn.Conv2d)]
    assert [conv.dilation for conv in convolutions] == [(1, 1), (2, 2), (5, 5)]
    x = torch.zeros(1, 16, 25, 25, dtype=torch.float64)
    x[..., 12, 12] = 1
    for conv in convolutions:
        x = torch.nn.functional.conv2d(
            x, torch.ones_like(conv.weight), None, 1, conv.padding, conv.dilation, conv.groups
        )
    reached = torch.zeros(25, 25, dtype=torch.bool)
    reached[4:21, 4:21] = True
    assert torch.equal(x[0, 0] > 0, reached)


def test_edge_map_depends_on_all_four_levels():
    levels = [torch.randn(1, c, 16 >> i, 16 >> i) for i, c in enumerate((16, 32, 80, 128))]
    levels = [level.requires_grad_() for level in levels]
    edge = ESM((16, 32, 80, 128))(levels)
    assert edge.shape == (1, 1, 16, 16)
    edge.square().sum().backward()
    assert all(level.grad.abs().max() > 0 for level in levels)


def test_mfam_has_eight_heads_at_every_level(build_tiny):
    heads = [
        block.attention.heads
        for mfam in build_tiny().aggregations
        for block in (mfam.from_rgb, mfam.from_noise, mfam.among_queries)
    ]
    assert heads == [8] * 12


@pytest.mark.parametrize("kind", ["conv", "mlp"])
def test_other_decoders_have_no_queries_and_no_dcm(kind, build_tiny):
    model = build_tiny(decoder=kind)
    query_parts = (DCM, QuerySelection, MFAM, TamperQueries, MLP)
    assert not [module for module in model.modules() if isinstance(module, query_parts)]


def test_update_of_freshly_initialized_dfcm_is_small(build_tiny):
    dfcm = build_tiny().interactions[2]
    r, n = torch.randn(2, 1, 80, 8, 8)
    r_out, n_out = dfcm(r, n)
    assert 0 < (r_out - r).std() < 0.2 * r.std()
    assert 0 < (n_out - n).std() < 0.2 * n.std()


def test_dfcm_scale_is_the_initial_scale_of_the_update(build_tiny):
    assert build_tiny().interactions[2].scale_rgb.tolist() == pytest.approx([0.1] * 80)
    dfcm = build_tiny(dfcm_scale=1.0).interactions[2]
    assert dfcm.scale_rgb.tolist() == dfcm.scale_noise.tolist() == [1.0] * 80
    r, n = torch.randn(2, 1, 80, 8, 8)
    attended = dfcm.attend(dfcm.recalibrate_rgb(dfcm.align(r)), dfcm.recalibrate_noise(n))
    torch.testing.assert_close(dfcm(r, n)[0], r + dfcm.back_rgb(attended))


def test_noise_features_are_not_projected_back_in_equation_4(build_tiny):
    dfcm = build_tiny(interaction="equation-4", dfcm_scale=1.0).interactions[2]
    r, n = torch.randn(2, 1, 80, 8, 8)
    attended = dfcm.attend(dfcm.recalibrate_noise(n), dfcm.recalibrate_rgb(dfcm.align(r)))
    torch.testing.assert_close(dfcm(r, n)[1], n + attended)  # eq 4, second line


def test_simple_fusion_adds_or_concatenates_the_modalities(build_tiny):
    r, n = torch.randn(2, 1, 80, 8, 8)
    add = build_tiny(interaction="add").interactions[2]
    torch.testing.assert_close(add(r, n)[0], r + 0.1 * add.to_rgb(n))
    torch.testing.assert_close(add(r, n)[1], n + 0.1 * add.to_noise(r))
    concat = build_tiny(interaction="concat").interactions[2]
    torch.testing.assert_close(concat(r, n)[1], n + 0.1 * concat.to_noise(torch.cat([r, n], 1)))


def test_without_feedback_encoders_do_not_receive_the_output_of_dfcm(build_tiny):
    model, seen = build_tiny(interaction="no-feedback").eval(), {}
    model.interactions[0].register_forward_hook(
        lambda _, args, out: seen.update(r_init=args[0], n_init=args[1], r=out[0], n=out[1])
    )
    model.rgb_backbone.stages[1].register_forward_pre_hook(lambda _, a: seen.update(r_in=a[0]))
    model.noise_backbone.stages[1].register_forward_pre_hook(lambda _, a: seen.update(n_in=a[0]))
    model.aggregations[0].register_forward_pre_hook(lambda _, a: seen.update(decoded=a[1:]))
    model(torch.randn(1, 3, 64, 64))
    assert seen["r_in"] is seen["r_init"]
    assert seen["n_in"] is seen["n_init"]
    assert seen["decoded"][0] is seen["r"]
    assert seen["decoded"][1] is seen["n"]


@pytest.mark.parametrize(
    ("interaction", "count"),
    [
        ("dfcm", 113_840_715),
        ("no-feedback", 113_840_715),
        ("equation-4", 113_454_667),  # without four projections: sum of C^2 + C = 386,048
        ("add", 111_806_539),
        ("concat", 112_576_587),  # 2 sum of C^2 = 770,048 more than "add"
    ],
)
def test_interactions_have_the_documented_parameters(interaction, count):
    with torch.device("meta"):
        model = QMANetModel.from_config(QMANetConfig(interaction=interaction))
    assert parameter_count(model) == count


def test_maps_of_all_levels_start_at_a_similar_scale(build_tiny):
    model, seen = build_tiny("b0").eval(), []
    for select in model.decoder.select:
        select.register_forward_hook(lambda _, args, out: seen.append(out.std().item()))
    model(torch.randn(1, 3, 128, 128))
    assert max(seen) / min(seen) < 3


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"size": "b9"}, "got size='b9', expected one of b0, b1, b2, b3, b4, b5"),
        (
            {"views": "srm,dct"},
            "got views='srm,dct', expected a comma-separated list of srm, bayar, noiseprint",
        ),
        ({"views": ""}, "got views=''"),
        ({"dfcm_stages": "12"}, "expected one of none, 4, 1234"),
        ({"decode_levels": "1"}, "expected one of 4, 1234"),
        ({"decoder": "unet"}, "expected one of query, conv, mlp"),
        ({"query_count": 0}, "expected 1 to 1024"),
        ({"drop_path": 1.5}, "expected 0 <= drop_path < 1"),
        ({"dfcm_scale": 0.0}, "expected 0 < dfcm_scale <= 10 (default: 0.1)"),
        ({"interaction": "sum"}, "expected one of dfcm, equation-4, no-feedback, add, concat"),
        ({}, "the noiseprint view needs noiseprint_weights; pass the path"),
        (
            {"views": "srm", "noiseprint_weights": "x"},
            "add noiseprint to views, or omit the weights",
        ),
    ],
)
def test_invalid_choice_gives_one_line_error(choices, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        build_qma_net(**{"size": "tiny", **choices})
    assert "\n" not in str(error.value)


def test_random_encoders_cause_a_warning():
    with pytest.warns(UserWarning, match="random encoders"):
        build_qma_net("tiny", "srm")
