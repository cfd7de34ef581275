"""Parameters and multiply-adds of the default model by part, and of every ablation.

    python -m benchmarks.complexity

Counted by fvcore in the same way as BenCo's test_complexity (512x512, batch 1, one multiply-add
= 1), including fused attention. The weights are random, since they do not affect the counts.
"""

import warnings

import torch
import yaml
from fvcore.nn import FlopCountAnalysis

import qma_net.benco  # noqa: F401  (makes fvcore count fused attention)
from qma_net.core.files import config_path
from qma_net.modeling.config import QMANetConfig
from qma_net.modeling.qma_net import QMANetModel

ABLATIONS = {
    **{
        entry["row"] + (f" (Table {entry['table']})" if entry["table"] else ""): entry["flags"]
        for entry in yaml.safe_load(config_path("ablations.yaml").read_text(encoding="utf-8"))
        if entry["flags"]  # The entry without flags is the default model.
    },
    "without SRM": {"views": "bayar,noiseprint"},
    "without Bayar": {"views": "srm,noiseprint"},
    "without NoisePrint++": {"views": "srm,bayar"},
    **{f"size b{i}": {"size": f"b{i}"} for i in (0, 1, 2, 4, 5)},
}


def main() -> None:
    """Print both tables."""
    warnings.simplefilter("ignore")
    default = count({})
    print("| part | parameters (M) | GFLOPs |\n|---|---|---|")
    for name, (parameters, flops) in default.items():
        print(f"| {name or 'QMA-Net b3'} | {parameters:.3f} | {flops:.2f} |")
    print("\n| model | parameters (M) | GFLOPs |\n|---|---|---|")
    for name, choices in ABLATIONS.items():
        parameters, flops = count(choices)[""]
        print(f"| {name} | {parameters:.2f} | {flops:.1f} |", flush=True)


def count(choices: dict) -> dict[str, tuple[float, float]]:
    """Count the parameters (in M) and GFLOPs of a model, with key "", and of each of its parts."""
    model = QMANetModel.from_config(QMANetConfig(**choices)).eval()
    flops = FlopCountAnalysis(TensorOutput(model), torch.randn(1, 3, 512, 512))
    flops.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_module = flops.by_module()
    parts = {"": model, **dict(model.named_children())}
    return {
        name: (
            sum(p.numel() for p in part.parameters()) / 1e6,
            by_module[f"model.{name}" if name else "model"] / 1e9
            or sum(by_module[f"model.{name}.{child}"] for child, _ in part.named_children()) / 1e9,
        )
        for name, part in parts.items()
    }


class TensorOutput(torch.nn.Module):
    """Model with a tuple of tensors as output, because tracing accepts nothing else."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        """Return the mask logits and the edge logits."""
        output = self.model(image)
        return output.mask_logits, *output.edge_logits


if __name__ == "__main__":
    main()
