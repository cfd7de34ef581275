"""Parameters and multiply-adds of the default model by part, and of every ablation.

    python -m benchmarks.complexity

Counted by fvcore as BenCo's test_complexity counts (512x512, batch 1, one multiply-add = 1),
fused attention included. Random weights: counts do not depend on them.
"""

import warnings

import torch
import yaml
from fvcore.nn import FlopCountAnalysis

import qma_net.benco  # noqa: F401  (teaches fvcore to count fused attention)
from qma_net.core.files import config_path
from qma_net.modeling.config import QMANetConfig
from qma_net.modeling.qma_net import QMANetModel

ABLATIONS = {
    **{
        f"{entry['row']} (Table {entry['table']})": entry["flags"]
        for entry in yaml.safe_load(config_path("ablations.yaml").read_text())
        if entry["flags"]  # without: the default, above
    },
    "without SRM": {"views": "bayar,noiseprint"},
    "without Bayar": {"views": "srm,noiseprint"},
    "without NoisePrint++": {"views": "srm,bayar"},
    **{f"size b{i}": {"size": f"b{i}"} for i in (0, 1, 2, 4, 5)},
}


def main() -> None:
    warnings.simplefilter("ignore")
    default = analyse({})
    print("| part | parameters (M) | GFLOPs |\n|---|---|---|")
    for name, (parameters, flops) in default.items():
        print(f"| {name or 'QMA-Net b3'} | {parameters:.3f} | {flops:.2f} |")
    print("\n| model | parameters (M) | GFLOPs |\n|---|---|---|")
    for name, choices in ABLATIONS.items():
        parameters, flops = analyse(choices)[""]
        print(f"| {name} | {parameters:.2f} | {flops:.1f} |", flush=True)


def analyse(choices: dict) -> dict[str, tuple[float, float]]:
    """(parameters in M, GFLOPs) of the model ("") and of each of its parts."""
    model = QMANetModel.from_config(QMANetConfig(**choices)).eval()
    flops = FlopCountAnalysis(Masks(model), torch.randn(1, 3, 512, 512))
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


class Masks(torch.nn.Module):
    """Tracing accepts tensors only."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        output = self.model(image)
        return output.mask_logits, *output.edge_logits


if __name__ == "__main__":
    main()
