#!/usr/bin/env bash
# The exact evaluation of a checkpoint (Tables 1, 5 and 6): qma-net evaluate, no image dropped.
#
#   GPUS=4 bash shell/evaluate.sh [--dry-run] [qma-net evaluate's flags]
#
# Writes OUT/evaluate/<set>.json and .csv; sets that are finished are kept.
#
#   CHECKPOINT  [the last epoch's in OUT]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=shell/common.sh
. "$here/common.sh" "$@"

take_checkpoint
need_file TEST_SETS "qma-net data protocol cat --root $DATA makes it"
exact evaluate --checkpoint "$CHECKPOINT" --test-sets "$TEST_SETS" --out "$OUT/evaluate"
