#!/usr/bin/env bash
# Save a checkpoint's masks as images with BenCo's test_save_images.py.
#
#   bash shell/save-images.sh [--dry-run] [BenCo's flags]
#
# Writes OUT/images/<set>/ (OUT/images-best/ with CHECKPOINT=best). GPUS and NODES are ignored: it
# uses one process and a batch of one image, since BenCo does not save images that do not fill a
# batch of all processes. (BenCo's TruFor fails on a single image: use --test_batch_size 2.)
#
#   CHECKPOINT  a file, or "best": as for evaluate.sh [the last epoch's in OUT]
#   SETS        datasets in DATA, by space [CASIAv1 Columbia Coverage NIST16]
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
