"""What is trained: ``benco_configs/evidence.yaml``, read."""

from dataclasses import dataclass, field

from qma_net.core.files import config_path, read_yaml

OURS = "QMANet"
SPLICES = "splices"  # the test set of the comparison


@dataclass(frozen=True)
class Row:
    """A model that is compared.

    Attributes:
        name: of its row and its folder.
        question: ``"idea"`` or ``"reading"``, the table that it stands in; empty for the first.
        model: its name in BenCo's registry.
        flags: its own.
    """

    name: str
    question: str = ""
    model: str = OURS
    flags: dict = field(default_factory=dict)

    @property
    def folder(self) -> str:
        return self.name.lower().replace(" ", "-").replace("+-", "")


@dataclass(frozen=True)
class Plan:
    """A size of the protocol; see the comments of the file."""

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
        content = read_yaml(config_path("evidence.yaml"), "the small protocol")[size]
        return cls(**{**content, "rows": [Row(**row) for row in content["rows"]]})

    def model_flags(self, row: Row) -> list[str]:
        """The command line of a row's model."""
        ours = row.model.startswith(OURS)
        return as_words({**(self.common if ours else {}), **row.flags})


def as_words(flags: dict) -> list[str]:
    """A command line; a flag that is ``true`` has no value."""
    return [
        word
        for name, value in flags.items()
        for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
    ]
