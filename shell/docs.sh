#!/usr/bin/env bash
# Build the documentation and the API reference in site/. Warnings are treated as errors.
#
#   bash shell/docs.sh [build|serve] [options of mkdocs]
#
# `serve` serves the pages on http://127.0.0.1:8000 and rebuilds them when a file changes.
# VENV and PYTHON: see shell/env.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=shell/env.sh
. "$here/env.sh"
if help_wanted "$0" "$@"; then exit; fi
make_environment dev
cd "$here/.."
command=${1:-build}
exec python -m mkdocs "$command" --strict "${@:2}"
