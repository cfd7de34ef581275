#!/usr/bin/env bash
# Evaluate a checkpoint exactly, on all images (Tables 1, 5 and 6), with qma-net evaluate.
#
#   GPUS=4 bash shell/evaluate.sh [--dry-run] [qma-net evaluate's flags]
#
# Writes OUT/evaluate/<set>.json and .csv (OUT/evaluate-best/ with CHECKPOINT=best); finished sets
# are skipped. For another MODEL it also saves the masks, which Figure 3 needs.
#
#   CHECKPOINT  a file, or "best": the checkpoint in OUT/best/, which was selected on the test sets
#               used during training; the report mentions that [the last epoch's in OUT]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=shell/common.sh
. "$here/common.sh" "$@"

take_checkpoint
need_file TEST_SETS "create it with qma-net data protocol cat --root $DATA"
masks=()
[ "$MODEL" = QMANet ] || masks=(--save-masks png)
exact evaluate --checkpoint "$CHECKPOINT" --test-sets "$TEST_SETS" "${masks[@]}" \
    --out "$OUT/evaluate$results"
