"""Special names accepted in place of a checkpoint (no imports here, to keep the CLI fast)."""

SMALL = "qma-net-small"  # the model included in the package
RANDOM = "random"  # a model with random weights, to try the commands
NONE = "none"  # no model, for commands that can work without one
