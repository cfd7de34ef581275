#!/usr/bin/env bash
# Run the tests marked slow: long training runs, interruptions, and fuzzing with more inputs than in
# the normal test suite. They take less than an hour on two cores.
#
#   bash shell/endurance.sh [options of pytest]      for example tests/test_stopped.py
#
#   FUZZ    number of modified inputs per file format [500]
#   KILLS   number of random kills per command that writes files [10]
#   OUT     file for a copy of the output [endurance.txt]
#
# docs/reliability.md summarizes the latest results. VENV and PYTHON: see shell/env.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=shell/env.sh
. "$here/env.sh"
if help_wanted "$0" "$@"; then exit; fi
make_environment benco,c2pa,demo,export,heif,report,web,dev
output=$(realpath "${OUT:-endurance.txt}")
unset OUT # Other scripts, which the tests call, have a variable of this name.
cd "$here/.."
QMA_NET_FUZZ=${FUZZ:-500} QMA_NET_KILLS=${KILLS:-10} QMA_NET_RECORD=$(mktemp)
export QMA_NET_FUZZ QMA_NET_KILLS QMA_NET_RECORD OMP_NUM_THREADS=1
started=$SECONDS
status=0
{
    echo "# $(date -u +%F), $(git rev-parse --short HEAD 2>/dev/null || echo 'no git')"
    python -m pytest -q -n 2 --dist loadfile -m 'slow and not gpu' "$@" || status=$?
    [ $# -gt 0 ] || python -m pytest -q tests/test_fuzz.py || status=$?
    sort "$QMA_NET_RECORD"
    echo "$(((SECONDS - started) / 60)) minutes, exit code $status"
} 2>&1 | tee "$output"
rm -f "$QMA_NET_RECORD"
tail -n 1 "$output" | grep -q 'exit code 0$'
