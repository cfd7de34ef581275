"""The experiments of ``benco_configs/evidence.yaml``."""

from dataclasses import dataclass, field
from pathlib import Path

from qma_net.core.errors import QMANetError
from qma_net.core.files import config_path, read_yaml

OURS = "QMANet"
# The stages of curriculum.yaml that the models are compared on.
STAGES = ("one-trace", "histories", "resampled", "laundered", "everything")
SPLICES = "splices"  # The test set on which the rows are compared.


@dataclass(frozen=True)
class Row:
    """A model in the comparison.

    Attributes:
        name: Name of the row and, in lower case, of its folder.
        question: The purpose of the comparison with the first row: ``"idea"``, ``"reading"`` or
            ``"baseline"``; empty for the first row. Baselines are listed in the table of ideas.
        model: Name in BenCo's registry.
        flags: The model's own flags.
    """

    name: str
    question: str = ""
    model: str = OURS
    flags: dict = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Name of the row's folder."""
        return self.name.lower().replace(" ", "-").replace("+-", "")


@dataclass(frozen=True)
class Plan:
    """The settings of one size of the comparison; ``evidence.yaml`` explains the fields.

    Attributes:
        noiseprint: Path of the published weights ``noiseprint++.th``, which every QMA-Net with the
            view ``noiseprint`` needs.
    """

    stage: str
    image_size: int
    test_images: int
    test_splices: int
    epochs: int
    batch_size: int
    lr: float
    seeds: list[int]
    common: dict
    rows: list[Row]
    noiseprint: str = ""

    @classmethod
    def read(cls, size: str, noiseprint: str = "") -> "Plan":
        """Read a plan that compares models; see :func:`comparisons`."""
        content = read_plans()[size]
        rows = [Row(**row) for row in content["rows"]]
        return cls(**{**content, "rows": rows, "noiseprint": noiseprint})

    def model_flags(self, row: Row) -> list[str]:
        """Return the command-line flags of a row's model."""
        flags = self._flags(row)
        if self._needs_noiseprint(row) and self.noiseprint:
            flags |= {"noiseprint_weights": self.noiseprint}
        return as_words(flags)

    def require_noiseprint(self, rows: list[Row]) -> None:
        """Check that the weights of NoisePrint++ exist if a row needs them.

        Raises:
            QMANetError: If they are missing.
        """
        needy = [row.name for row in rows if self._needs_noiseprint(row)]
        if not needy or Path(self.noiseprint or ".").is_file():
            return
        fault = f"{self.noiseprint} is not a file" if self.noiseprint else "--noiseprint is not set"
        raise QMANetError(
            f"{needy[0]} has the view noiseprint, but {fault}; pass the path of noiseprint++.th "
            "(NOISEPRINT=FILE bash shell/evidence.sh; see qma-net weights), or choose other --rows"
        )

    def _flags(self, row: Row) -> dict:
        common = self.common if row.model.startswith(OURS) else {}
        return {**common, **row.flags}

    def _needs_noiseprint(self, row: Row) -> bool:
        return "noiseprint" in self._flags(row).get("views", "").split(",")


def read_plans() -> dict:
    """Read ``evidence.yaml``: the plans of :func:`comparisons`, and ``small`` and ``copies``."""
    return read_yaml(config_path("evidence.yaml"), "the plans of benchmarks.evidence")


def comparisons() -> list[str]:
    """Return the names of the plans that compare models: ``cpu``, ``longer`` and ``gpu``."""
    return [name for name, plan in read_plans().items() if "rows" in plan]


def as_words(flags: dict) -> list[str]:
    """Convert flags to command-line words; a flag whose value is ``True`` takes no argument."""
    return [
        word
        for name, value in flags.items()
        for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
    ]
