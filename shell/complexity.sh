#!/usr/bin/env bash
# Count parameters and multiply-adds (Table 10) with BenCo's test_complexity.py, in one process.
#
#   bash shell/complexity.sh [--dry-run] [BenCo's and the model's flags, e.g. --decoder mlp]
#
# BenCo's output is also written to OUT/complexity.txt.
#
#   SIZE        size of both encoders of QMA-Net, b0 to b5 [b3]
#   NOISEPRINT  path to noiseprint++.th; leave it empty, and add --views srm,bayar, to omit
#               NoisePrint++ [noiseprint++.th]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=shell/common.sh
. "$here/common.sh" "$@"

take_architecture ""
count() {
    benco one_process test_complexity "${architecture[@]}" --test_batch_size 1
}
if [ -n "$dry_run" ]; then
    printf '%s | tee %q\n' "$(count)" "$OUT/complexity.txt"
else
    mkdir -p "$OUT"
    count | tee "$OUT/complexity.txt"
fi
