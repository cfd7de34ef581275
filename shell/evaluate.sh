#!/usr/bin/env bash
# Evaluate a checkpoint with qma-net evaluate: per-image metrics over every image, without sampling
# or dropped batches (Tables 1, 5 and 6).
#
#   GPUS=4 bash shell/evaluate.sh [--dry-run] [qma-net evaluate's flags]
#
# Writes OUT/evaluate/<test set>.json and .csv; with CHECKPOINT=best, the folder is
# OUT/evaluate-best/. Finished test sets are skipped. For a different MODEL, the masks are saved as
# well, because Figure 3 needs them.
#
#   CHECKPOINT  a file, or "best" for the checkpoint in OUT/best/; since it was selected on the test
#               sets used during training, the report labels its results accordingly
#               [the checkpoint of the last epoch in OUT]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=shell/common.sh
. "$here/common.sh" "$@"

take_checkpoint
need_file TEST_SETS "create it with qma-net data protocol cat --root $DATA"
masks=()
[ "$MODEL" = QMANet ] || masks=(--save-masks png)
evaluation evaluate --checkpoint "$CHECKPOINT" --test-sets "$TEST_SETS" "${masks[@]}" \
    --out "$OUT/evaluate$results"
