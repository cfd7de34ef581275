#!/usr/bin/env bash
# Test a checkpoint with BenCo's test.py, for comparison with evaluate.sh. The results differ
# because BenCo counts the F1 of an authentic image as 0.
#
#   GPUS=4 bash shell/benco-test.sh [--dry-run] [BenCo's flags]
#
# Writes OUT/benco-test/<last test set>/log.txt: one line per test set, in order but unnamed. With
# CHECKPOINT=best, the folder is OUT/benco-test-best/.
#
#   CHECKPOINT  a file, or "best" as in evaluate.sh [the checkpoint of the last epoch in OUT]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=shell/common.sh
. "$here/common.sh" "$@"

take_checkpoint
need_file TEST_SETS "create it with qma-net data protocol cat --root $DATA"
# test.py tests every checkpoint in a folder, so link this one into a separate folder.
out=$OUT/benco-test$results
folder=$out/$(basename "$CHECKPOINT" .pth)
run mkdir -p "$folder"
link=$folder/$(basename "$CHECKPOINT")
if [ -e "$link" ] && [ ! -L "$link" ]; then
    [ "$link" -ef "$CHECKPOINT" ] || fail "$link is not a link to $CHECKPOINT; move it elsewhere"
else
    run ln -sfn "$(realpath -m "$CHECKPOINT")" "$link"
fi
benco torchrun test --test_data_json "$TEST_SETS" --checkpoint_path "$folder" \
    --test_batch_size 4 --output_dir "$out" --log_dir "$out"
