"""Contracts with BenCo, torch and fvcore: one test per function that QMA-Net replaces."""

import ast
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from conftest import ROOT
from qma_net.launch import contracts
from qma_net.launch.contracts import CONTRACTS, DATASET, MISC
from qma_net.launch.scripts import BENCO_VERSION, SCRIPTS

LAUNCH = ROOT / "qma_net/launch"


@pytest.mark.parametrize("target", CONTRACTS)
def test_installed_benco_satisfies_contract(target):
    assert CONTRACTS[target].violations() == []


def test_installed_benco_is_the_supported_version_with_all_scripts():
    assert version("imdlbenco") == BENCO_VERSION
    assert all(find_spec(f"IMDLBenCo.training_scripts.{script}") for script in SCRIPTS)


def test_missing_function_is_a_violation():
    contract = CONTRACTS[f"{MISC}:save_model"]
    (violation,) = replace(contract, target=f"{MISC}:save_model_v2").violations()
    assert violation.startswith(f"{MISC}:save_model_v2 does not exist")
    (violation,) = replace(contract, target="IMDLBenCo.trainer:save_model", calls=()).violations()
    assert violation.startswith("IMDLBenCo.trainer:save_model does not exist")


@pytest.mark.parametrize(
    ("target", "parameters"),
    [
        (f"{MISC}:seed_torch", "seed deterministic"),
        (f"{MISC}:save_model", "epoch args model model_without_ddp optimizer"),
        (f"{DATASET}:AbstractDataset._get_image", "self"),
        ("torch:load", "f weights_only safe"),
        ("torch.distributed:init_process_group", "init_method backend"),
    ],
)
def test_changed_signature_is_a_violation(target, parameters):
    (violation,) = replace(CONTRACTS[target], parameters=parameters).violations()
    assert violation.startswith(f"{target} has the parameters [")


def test_new_parameter_of_benco_function_is_a_violation(monkeypatch):
    def seed_torch(seed, deterministic=True):
        """Stand in for a newer version."""

    monkeypatch.setattr(f"{MISC}.seed_torch", seed_torch)
    (violation,) = CONTRACTS[f"{MISC}:seed_torch"].violations()
    assert "['seed', 'deterministic'], expected ['seed']" in violation


@pytest.mark.parametrize("module", [MISC, "IMDLBenCo.no_such_module", "no_such_package.module"])
def test_missing_call_site_is_a_violation(module):
    contract = replace(CONTRACTS["torch:load"], calls=((module, "torch.load(path, safe=True)"),))
    assert contract.violations() == [f"{module} does not contain `torch.load(path, safe=True)`"]


def test_only_listed_functions_can_be_replaced():
    with pytest.raises(KeyError):
        contracts.install("torch:save", print)


def test_launcher_replaces_functions_through_contracts_only():
    """No module of launch/ assigns to an attribute of an imported module."""
    for file in sorted(LAUNCH.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        imported = {
            (alias.asname or alias.name).split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assigned = {
            ast.unparse(target)
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Attribute) and ast.unparse(target).split(".")[0] in imported
        }
        allowed = {"sys.stdout", "sys.argv", "warnings.showwarning", "torch.backends.cudnn.enabled"}
        assert assigned <= allowed, file.name


@pytest.mark.parametrize("target", CONTRACTS)
def test_file_named_in_contract_mentions_function(target):
    """The file in parentheses at the end of each purpose mentions the function."""
    contract = CONTRACTS[target]
    files = [part.split(")")[0] for part in contract.purpose.split("(")[1:] if ".py)" in part]
    assert files
    for name in files:
        file = Path(ROOT / "qma_net" / name if "/" in name else LAUNCH / name)
        assert target.rpartition(":")[2].rpartition(".")[2] in file.read_text(encoding="utf-8") or (
            target.endswith("__call__")
        )
