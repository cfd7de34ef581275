#!/usr/bin/env bash
# Evaluate a checkpoint under attacks (Figure 4, Tables 7 and 8) with qma-net robust or with BenCo's
# test_robust.py.
#
#   GPUS=4 bash shell/robust.sh [--dry-run] [qma-net robust's flags]
#   BENCO=1 GPUS=4 bash shell/robust.sh [--dry-run] [BenCo's flags]
#
# Writes one JSON file per attack and level to OUT/robust/<test set>/. With BENCO=1, BenCo's logs
# are written to OUT/benco-robust/<test set>/ instead. With CHECKPOINT=best, the folders are
# OUT/robust-best/ and OUT/benco-robust-best/.
#
#   CHECKPOINT  a file, or "best" as in evaluate.sh [the checkpoint of the last epoch in OUT]
#   SETS        datasets in DATA, separated by spaces
#               [those of Tables 7 and 8: CASIAv1 Columbia NIST16 Coverage]
#   BENCO       1 runs BenCo's unmodified test_robust.py instead of qma-net robust [0]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=shell/common.sh
. "$here/common.sh" "$@"

take_checkpoint
take_sets "CASIAv1 Columbia NIST16 Coverage"
if [ "${BENCO:-0}" = 0 ]; then
    evaluation robust --checkpoint "$CHECKPOINT" --test-sets "${sets[@]}" --out "$OUT/robust$results"
    exit
fi
for set in "${sets[@]}"; do
    out=$OUT/benco-robust$results/$(basename "$set" .json)
    benco torchrun test_robust --test_data_path "$set" --checkpoint_path "$CHECKPOINT" \
        --test_batch_size 4 --output_dir "$out" --log_dir "$out"
done
