"""Dice loss and edge target compared with values derived by hand and with BenCo's operator."""

import pytest
import torch

from qma_net.modeling.losses import DICE_SMOOTHING, dice_loss, edge_target, mask_and_edge_losses
from qma_net.modeling.qma_net import QMANetOutput

SATURATED = 50.0  # the sigmoid of this logit is 1 in float32


def logits_of(probability: float, shape=(1, 1, 10, 10)) -> torch.Tensor:
    return torch.full(shape, probability).logit()


def test_dice_of_perfect_and_inverted_predictions_matches_manual_result():
    mask = torch.zeros(1, 1, 10, 10)
    mask[..., :5, :] = 1
    perfect = SATURATED * (2 * mask - 1)
    s = DICE_SMOOTHING * 100
    assert dice_loss(perfect, mask).item() == pytest.approx(0, abs=1e-6)
    # No overlap, 50 predicted and 50 true pixels: 1 - s / (100 + s).
    assert dice_loss(-perfect, mask).item() == pytest.approx(1 - s / (100 + s), abs=1e-6)


def test_dice_of_constant_probability_matches_manual_result():
    mask = torch.zeros(1, 1, 10, 10)
    mask[..., :2, :] = 1
    s = DICE_SMOOTHING * 100
    # p = 0.5 everywhere: overlap 0.5 * 20, squares 0.25 * 100 + 20.
    expected = 1 - (2 * 10 + s) / (25 + 20 + s)
    assert dice_loss(logits_of(0.5), mask).item() == pytest.approx(expected, abs=1e-6)


def test_dice_of_authentic_image_is_zero_if_nothing_is_marked():
    authentic = torch.zeros(1, 1, 10, 10)
    s = DICE_SMOOTHING * 100
    assert dice_loss(torch.full((1, 1, 10, 10), -SATURATED), authentic).item() == pytest.approx(0)
    assert dice_loss(logits_of(0.5), authentic).item() == pytest.approx(1 - s / (25 + s), abs=1e-6)


def test_gradient_of_authentic_image_does_not_depend_on_its_size():
    gradients = []
    for side in (32, 512):
        logits = torch.zeros(1, 1, side, side, requires_grad=True)
        dice_loss(logits, torch.zeros(1, 1, side, side)).backward()
        gradients.append(logits.grad.sum().item())
    # d/dz of -s / (p^2 A + s) at p = 0.5, summed over the pixels, with s = e A:
    # e * 2 p * p (1 - p) / (p^2 + e)^2
    expected = DICE_SMOOTHING * 0.25 / (0.25 + DICE_SMOOTHING) ** 2
    assert gradients == pytest.approx([expected, expected], rel=1e-4)


def test_dice_is_averaged_over_images():
    logits = torch.cat([logits_of(0.5), logits_of(0.9)])
    mask = torch.zeros(2, 1, 10, 10)
    mask[1, :, :1] = 1
    separate = [dice_loss(logits[i : i + 1], mask[i : i + 1]).item() for i in range(2)]
    assert dice_loss(logits, mask).item() == pytest.approx(sum(separate) / 2, abs=1e-6)


def test_padding_does_not_change_dice():
    inner, mask = torch.randn(1, 1, 6, 8), (torch.rand(1, 1, 6, 8) > 0.5).double()
    logits, padded = torch.full((1, 1, 10, 10), 3.0), torch.zeros(1, 1, 10, 10).double()
    valid = torch.zeros(1, 1, 10, 10).double()
    logits[..., :6, :8], padded[..., :6, :8], valid[..., :6, :8] = inner, mask, 1
    assert dice_loss(logits, padded, valid).item() == pytest.approx(
        dice_loss(inner, mask).item(), abs=1e-6
    )


def test_dice_does_not_overflow_in_half_precision():
    logits = torch.full((1, 1, 512, 512), 9.0, dtype=torch.float16)
    mask = torch.ones(1, 1, 512, 512)
    assert dice_loss(logits, mask).item() == pytest.approx(0, abs=1e-3)


def test_edge_target_matches_manual_result():
    mask = torch.zeros(1, 1, 1, 9)
    mask[..., 4:] = 1
    ring = edge_target(mask, width=3)  # One pixel on each side of the boundary.
    assert ring.flatten().tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0]


def test_edge_target_equals_operator_of_benco():
    from IMDLBenCo.transforms import EdgeMaskGenerator

    mask = torch.zeros(1, 1, 40, 40)
    mask[..., 8:20, 3:30] = 1
    mask[..., 25:40, 20:28] = 1
    expected = EdgeMaskGenerator(7)(mask[0, 0].numpy())
    assert torch.equal(edge_target(mask), torch.from_numpy(expected))


def test_border_of_padding_is_not_an_edge():
    mask, valid = torch.zeros(1, 1, 20, 20), torch.zeros(1, 1, 20, 20)
    # The whole image is tampered, and the rest is padding.
    mask[..., :10, :10] = valid[..., :10, :10] = 1
    assert edge_target(mask).sum() > 0
    assert edge_target(mask, valid).sum() == 0


def test_both_losses_of_perfect_output_are_zero():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1
    output = QMANetOutput(SATURATED * (2 * mask - 1), [SATURATED * (2 * edge_target(mask) - 1)])
    seg_loss, edge_loss = mask_and_edge_losses(output, mask.double())
    assert seg_loss.item() == pytest.approx(0, abs=1e-6)
    assert edge_loss.item() == pytest.approx(0, abs=1e-6)


def test_smoothing_is_a_share_of_the_area():
    """No tampering and p = 1/2 on all 64 pixels: 1 - s / (16 + s) with s = 64 x share."""
    authentic = torch.zeros(1, 1, 8, 8)
    for share in (0.003, 0.25):
        expected = 16 / (16 + 64 * share)
        assert dice_loss(authentic, authentic, smoothing=share).item() == pytest.approx(expected)
    output = QMANetOutput(authentic, [authentic])
    losses = mask_and_edge_losses(output, authentic, smoothing=0.25)
    assert [loss.item() for loss in losses] == pytest.approx([0.5, 0.5])
