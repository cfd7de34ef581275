#!/usr/bin/env bash
# Create the environment, check style and types, and run the tests.
#
#   bash shell/test.sh [options of pytest]      for example -m gpu, -m slow, tests/test_losses.py
#
# Needs Python 3.11 or 3.12. Takes about 7 minutes on two cores after the installation.
# QMA_NET_SHARED is the folder of the shared data that some tests need [../shared].
# VENV and PYTHON: see shell/env.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=shell/env.sh
. "$here/env.sh"
if help_wanted "$0" "$@"; then exit; fi
make_environment benco,demo,export,heif,report,web,dev
cd "$here/.."
ruff check .
ruff format --check .
mypy
# More threads than cores would wait for each other: two workers with one thread each.
OMP_NUM_THREADS=1 exec python -m pytest -n 2 --dist loadfile "$@"
