"""The experiments of ``benco_configs/evidence.yaml``."""

from dataclasses import dataclass, field

from qma_net.core.files import config_path, read_yaml

OURS = "QMANet"
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
    """The settings of one size of the comparison; ``evidence.yaml`` explains the fields."""

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

    @classmethod
    def read(cls, size: str) -> "Plan":
        """Read the plan of a size, ``"cpu"`` or ``"gpu"``."""
        content = read_plans()[size]
        return cls(**{**content, "rows": [Row(**row) for row in content["rows"]]})

    def model_flags(self, row: Row) -> list[str]:
        """Return the command-line flags of a row's model."""
        common = self.common if row.model.startswith(OURS) else {}
        return as_words({**common, **row.flags})


def read_plans() -> dict:
    """Read ``evidence.yaml``: the plans ``cpu``, ``gpu`` and ``small``."""
    return read_yaml(config_path("evidence.yaml"), "the plans of benchmarks.evidence")


def as_words(flags: dict) -> list[str]:
    """Convert flags to command-line words; a flag whose value is ``True`` takes no argument."""
    return [
        word
        for name, value in flags.items()
        for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
    ]
