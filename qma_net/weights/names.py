"""What is no path where a checkpoint is asked for; no imports, so that a command line is quick."""

SMALL = "qma-net-small"  # the package's own model; its README.md says what it is
RANDOM = "random"  # weights that mean nothing: a model to show the mechanics with
NONE = "none"  # no model at all, where there is something to do without
