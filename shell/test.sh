#!/usr/bin/env bash
# From a fresh machine to a green test suite: environment, lint, format check, tests.
#
#   bash shell/test.sh [pytest's arguments]      e.g. -m gpu, -m slow, tests/test_losses.py
#
# VENV and PYTHON: see shell/env.sh. Needs Python 3.11 or 3.12; about 7 minutes on two cores once
# everything is installed. Tests that use the shared data look for it in QMA_NET_SHARED.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=shell/env.sh
. "$here/env.sh"
if help_wanted "$0" "$@"; then exit; fi
make_environment benco,demo,export,heif,report,web,dev
cd "$here/.."
ruff check .
ruff format --check .
# Two workers of one thread each: more threads than cores wait for each other.
OMP_NUM_THREADS=1 exec python -m pytest -n 2 --dist loadfile "$@"
