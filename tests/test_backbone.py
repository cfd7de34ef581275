"""Encoders compared with BenCo's port of SegFormer, and loading of their pretrained weights."""

import json
import re

import pytest
import torch

from qma_net.modeling.backbone import MiT, remap_official
from qma_net.modeling.config import SIZES, QMANetConfig
from qma_net.modeling.qma_net import QMANetModel
from qma_net.weights.sources import load_backbones, mit_state
from sample_archives import official_names


def benco_transformer(depths, tmp_path):
    """Build BenCo's MixVisionTransformer with random weights; its constructor needs a file."""
    from IMDLBenCo.modules.backbones.segformer import MixVisionTransformer

    empty = tmp_path / "empty.pth"
    torch.save({}, empty)
    return MixVisionTransformer(pretrain_path=empty, depths=list(depths)).eval()


def benco_features(model, image):
    features = []
    for stage in "1234":
        image, height, width = getattr(model, f"patch_embed{stage}")(image)
        for block in getattr(model, f"block{stage}"):
            image = block(image, height, width)
        image = getattr(model, f"norm{stage}")(image)
        image = image.transpose(1, 2).unflatten(2, (height, width))
        features.append(image)
    return features


def test_official_weights_give_the_features_of_benco(tmp_path):
    _, depths = SIZES["b3"]
    reference = benco_transformer(depths, tmp_path)
    official = tmp_path / "mit_b3.pth"
    torch.save(reference.state_dict(), official)  # Includes BenCo's deconv head.
    model = QMANetModel.from_config(QMANetConfig(views="srm")).eval()
    load_backbones(model, official)
    image = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        expected = benco_features(reference, image)
        for backbone in (model.rgb_backbone, model.noise_backbone):
            actual = image
            for stage, features in zip(backbone.stages, expected, strict=True):
                actual = stage(actual)
                assert actual.shape == features.shape
                assert (actual - features).abs().max() / features.abs().max() < 1e-5


def test_remapping_of_official_names_is_one_to_one():
    state = MiT(*SIZES["b0"], drop_path=0.0).state_dict()
    official = official_names(state)
    remapped = remap_official(official)
    assert remapped.keys() == state.keys()
    assert all(torch.equal(remapped[name], state[name]) for name in state)


def test_remapping_drops_the_imagenet_head_and_keeps_unknown_names():
    state = MiT(*SIZES["b0"], drop_path=0.0).state_dict()
    official = {**official_names(state), "head.weight": torch.zeros(1000, 256)}
    assert remap_official(official).keys() == state.keys()
    assert "aux.weight" in remap_official({**official, "aux.weight": torch.zeros(1)})


@pytest.mark.parametrize("head", [True, False], ids=["classifier", "encoder"])
def test_hugging_face_directory_is_loaded_into_both_encoders(tmp_path, head):
    from transformers import SegformerConfig, SegformerForImageClassification, SegformerModel

    channels, depths = SIZES["b0"]
    config = SegformerConfig(hidden_sizes=list(channels), depths=list(depths))
    saved = (SegformerForImageClassification if head else SegformerModel)(config)
    saved.save_pretrained(tmp_path)
    model = QMANetModel.from_config(QMANetConfig(size="b0", views="srm"))
    load_backbones(model, tmp_path)
    expected = (saved.segformer if head else saved).state_dict()
    for backbone in (model.rgb_backbone, model.noise_backbone):
        assert all(torch.equal(backbone.state_dict()[n], t) for n, t in expected.items())


def test_names_of_older_transformers_versions_are_remapped(tmp_path):
    """The published nvidia/mit-b* were saved by an older version of transformers."""
    from safetensors.torch import save_file

    channels, depths = SIZES["b0"]
    state = MiT(channels, depths, drop_path=0.0).state_dict()
    renamed = {
        r"^stages\.(\d)\.patch_embeddings": r"patch_embeddings.\1",
        r"^stages\.(\d)\.layer_norm": r"layer_norm.\1",
        r"^stages\.(\d)\.blocks": r"block.\1",
        "layernorm_before": "layer_norm_1",
        "layernorm_after": "layer_norm_2",
        "attention.([qkv])_proj": lambda m: "attention.self." + NAMES[m[1]],
        "attention.o_proj": "attention.output.dense",
        "attention.sequence_reduction.sequence_reduction": "attention.self.sr",
        "attention.sequence_reduction.layer_norm": "attention.self.layer_norm",
        "mlp.fc": "mlp.dense",
    }
    published = {"classifier.weight": torch.zeros(1000, 256), "classifier.bias": torch.zeros(1000)}
    for name, tensor in state.items():
        for ours, theirs in renamed.items():
            name = re.sub(ours, theirs, name)
        published[f"segformer.encoder.{name}"] = tensor
    save_file(published, tmp_path / "model.safetensors", {"format": "pt"})
    config = {"model_type": "segformer", "hidden_sizes": channels, "depths": depths}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = mit_state(tmp_path)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


NAMES = {"q": "query", "k": "key", "v": "value"}


def test_depthwise_convolutions_are_initialized_as_in_the_official_segformer():
    weight = MiT(*SIZES["b0"], drop_path=0.0).stages[3].blocks[0].mlp.dwconv.dwconv.weight
    assert weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
