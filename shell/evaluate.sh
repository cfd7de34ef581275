#!/usr/bin/env bash
# The exact evaluation of a checkpoint (Tables 1, 5 and 6): qma-net evaluate, no image dropped.
#
#   GPUS=4 bash shell/evaluate.sh [--dry-run] [qma-net evaluate's flags]
#
# Writes OUT/evaluate/<set>.json and .csv (OUT/evaluate-best/ with CHECKPOINT=best); sets that are
# finished are kept. Another MODEL's masks are kept too: Figure 3 is made of them.
#
#   CHECKPOINT  a file, or "best": the one of OUT/best/, which training's test sets picked, and which
#               the report says so of [the last epoch's in OUT, which none has picked]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=shell/common.sh
. "$here/common.sh" "$@"

take_checkpoint
need_file TEST_SETS "qma-net data protocol cat --root $DATA makes it"
masks=()
[ "$MODEL" = QMANet ] || masks=(--save-masks png)
exact evaluate --checkpoint "$CHECKPOINT" --test-sets "$TEST_SETS" "${masks[@]}" \
    --out "$OUT/evaluate$results"
