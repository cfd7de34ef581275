#!/usr/bin/env bash
# Train, evaluate and attack a small QMA-Net on synthetic images, and plot the results.
#
#   bash shell/demo.sh [options]
#
# It needs Python 3.11 or 3.12, but neither a GPU nor a dataset. On two cores, it takes about 12
# minutes, excluding installation.
#
#   --photos DIR       use your own photos instead of the packaged ones
#   --out DIR          output folder [runs/demo]
#   --seed N           random seed of the data and of training [0]
#   --images N         number of training images [2000]
#   --test-images N    number of test images [120]
#   --image-size N     image size in pixels [96]
#   --epochs N         number of epochs [5]
#   --batch-size N     batch size per process [8]
#   --lr X             learning rate [1e-3]
#   --processes N      number of training processes [2]
#
# If you interrupt it, run the same command again: finished work is kept.
# VENV and PYTHON: see shell/env.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=shell/env.sh
. "$here/env.sh"
if help_wanted "$0" "$@"; then exit; fi
make_environment benco,demo
exec python -m qma_net.demo "$@"
