#!/usr/bin/env bash
# From a fresh machine to a trained, tested, attacked and pictured QMA-Net: no GPU, no downloads
# of data. Needs Python 3.11 or 3.12; about 12 minutes on two cores once everything is installed.
#
#   bash shell/demo.sh [--photos DIR] [--seed N] [--out DIR]     (--help for all)
#
# Interrupt it and start it again: what is finished is kept. VENV and PYTHON: see shell/env.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=shell/env.sh
. "$here/env.sh"
make_environment benco,demo
exec python -m qma_net.demo "$@"
