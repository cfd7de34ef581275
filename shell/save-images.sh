#!/usr/bin/env bash
# Save the predicted masks of a checkpoint as images with BenCo's test_save_images.py.
#
#   bash shell/save-images.sh [--dry-run] [BenCo's flags]
#
# Writes OUT/images/<test set>/; with CHECKPOINT=best, the folder is OUT/images-best/. The script
# ignores GPUS and NODES and uses a single process with a batch size of 1, because BenCo does not
# save the images of an incomplete batch. (BenCo's TruFor fails on a single image; for it, RECIPE=own
# uses 2, otherwise add --test_batch_size 2.)
#
#   CHECKPOINT  a file, or "best" as in evaluate.sh [the checkpoint of the last epoch in OUT]
#   SETS        datasets in DATA, separated by spaces [CASIAv1 Columbia Coverage NIST16]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=shell/common.sh
. "$here/common.sh" "$@"

take_checkpoint
take_sets "CASIAv1 Columbia Coverage NIST16"
for set in "${sets[@]}"; do
    out=$OUT/images$results/$(basename "$set" .json)
    benco one_process test_save_images --test_data_path "$set" --checkpoint_path "$CHECKPOINT" \
        --test_batch_size 1 --output_dir "$out" --log_dir "$out"
done
