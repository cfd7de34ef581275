#!/usr/bin/env bash
# From a fresh machine to a trained, tested, attacked and pictured QMA-Net: no GPU, no downloads
# of data. Needs Python 3.11 or 3.12; about 12 minutes on two cores once everything is installed.
#
#   bash shell/demo.sh [flags]
#
#   --photos DIR       photographs of your own, in place of the packaged ones
#   --out DIR          where everything goes [runs/demo]
#   --seed N           of data and training [0]
#   --images N         for training [2000], --test-images N for testing [120]
#   --image-size N     side in pixels [96]
#   --epochs N         [5], --batch-size N per process [8], --lr X [1e-3]
#   --processes N      [2]
#
# Interrupt it and start it again: what is finished is kept. VENV and PYTHON: see shell/env.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=shell/env.sh
. "$here/env.sh"
if help_wanted "$0" "$@"; then exit; fi
make_environment benco,demo
exec python -m qma_net.demo "$@"
