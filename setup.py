"""Packages of the wheel. All other settings are in pyproject.toml."""

from setuptools import find_packages, setup

# Folders of the repository that travel inside the package: the configurations for BenCo and the
# shell scripts. pyproject.toml cannot list them together with the packages that are found.
OUTSIDE = {"qma_net.benco_configs": "benco_configs", "qma_net.shell": "shell"}

setup(packages=[*find_packages(include=["qma_net", "qma_net.*"]), *OUTSIDE], package_dir=OUTSIDE)
