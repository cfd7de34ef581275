#!/usr/bin/env bash
# Create the environment, check style and types, and run the test suite.
#
#   bash shell/test.sh [options of pytest]      for example -m gpu, -m slow, tests/test_losses.py
#
# It needs Python 3.11 or 3.12 and takes about 9 minutes on two cores, excluding installation.
#
#   QMA_NET_SHARED  folder of shared data; tests that need it are skipped without it [../shared]
#
# VENV and PYTHON: see shell/env.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=shell/env.sh
. "$here/env.sh"
if help_wanted "$0" "$@"; then exit; fi
make_environment benco,c2pa,demo,export,heif,report,web,dev
cd "$here/.."
ruff check .
ruff format --check .
mypy
# Two workers with one thread each: more threads than cores would slow each other down.
OMP_NUM_THREADS=1 exec python -m pytest -n 2 --dist loadfile "$@"
