#!/usr/bin/env bash
# What this implementation learns from nothing, and which parts of it help: docs/evidence.md.
#
#   PHOTOS=/data/photographs bash shell/evidence.sh [cpu|gpu|small]
#
# Every model of benco_configs/evidence.yaml is trained with BenCo's train.py on the same images, made
# fresh, and tested on images of photographs that it never saw. `small` is one model, through all
# stages of curriculum.yaml. Started again it goes on: what is finished is kept, a training
# continues from its last epoch.
#
#   PHOTOS   folder of untouched photographs, 500 or more; their label maps in LABELS, if any
#   REAL     test sets of real manipulated photographs, by spaces []
#   OUT      where everything goes [runs/evidence/<size>]
#   MINUTES  after which nothing new begins and what trains is stopped [as long as it takes]
#   SEEDS    by spaces [those of the plan]
#   ROWS     names of rows of the plan, by commas [all]
#   EPOCHS   of 1,840 images [those of the plan]
#   JOBS     trainings at once, each with its share of the cores [1]
#   DOCS     the page whose tables are written anew [OUT/evidence.md]
#
# VENV and PYTHON: see shell/env.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=shell/env.sh
. "$here/env.sh"
if help_wanted "$0" "$@"; then exit; fi
size=${1:-cpu}
[ -n "${PHOTOS:-}" ] || {
    echo "evidence.sh: got no PHOTOS, expected a folder of photographs: PHOTOS=DIR bash $0" >&2
    exit 2
}
make_environment benco,report
OUT=${OUT:-runs/evidence/$size}
flags=(--photos "$PHOTOS" --out "$OUT")
[ -z "${LABELS:-}" ] || flags+=(--labels "$LABELS")
[ -z "${MINUTES:-}" ] || flags+=(--minutes "$MINUTES")
[ -z "${EPOCHS:-}" ] || flags+=(--epochs "$EPOCHS")
[ -z "${JOBS:-}" ] || flags+=(--jobs "$JOBS")
[ -z "${ROWS:-}" ] || flags+=(--rows "$ROWS")
read -r -a seeds <<<"${SEEDS:-}"
[ ${#seeds[@]} -eq 0 ] || flags+=(--seeds "${seeds[@]}")
read -r -a real <<<"${REAL:-}"
[ ${#real[@]} -eq 0 ] || flags+=(--real "${real[@]}")
PYTHONPATH=$here/.. python -m benchmarks.evidence "$size" "${flags[@]}"
[ "$size" = small ] ||
    PYTHONPATH=$here/.. python -m benchmarks.evidence.page "$size" --out "$OUT" ${DOCS:+--docs "$DOCS"}
