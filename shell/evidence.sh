#!/usr/bin/env bash
# Train and test the models of docs/evidence.md, which shows what QMA-Net learns from random
# initialization and which of its components help.
#
#   PHOTOS=/data/photos bash shell/evidence.sh [cpu|longer|gpu|small|copies]
#
# The argument selects a plan in benco_configs/evidence.yaml [cpu]. All models of the plans cpu, longer
# and gpu are trained with BenCo's train.py on the same synthetic images and tested on images created
# from other photos; longer trains some models of cpu for 13 epochs instead of 2. The plan small trains
# qma-net-small, chooses its threshold, writes it to OUT/qma-net-small with a model card, and compares it
# with the packaged model. The plan copies continues the training of the packaged model on copy-moves
# only. If you interrupt the script, run the same command again: training resumes from the last epoch.
#
#   PHOTOS   folder of at least 500 authentic photos; for small, with the folders CAMERA (not used in
#            training), CCP and WEB
#   LABELS   folder of label maps for the photos []
#   NOISEPRINT  noiseprint++.th, which the plan gpu needs (see qma-net weights) []
#   REAL     test sets of real tampered photos, separated by spaces; for small, those in
#            docs/evidence/real-split.csv []
#   HALF     for small, the half of REAL that the comparison uses: validation, or test once all choices
#            have been made [validation]
#   OUT      output folder [runs/evidence/PLAN, where PLAN is the argument]
#   MINUTES  time limit in minutes; then no further run is started, and running ones are stopped [none]
#   SEEDS    seeds, separated by spaces [all seeds of the plan]; the paper's attacks are only applied with
#            the plan's first seed
#   ROWS     names of models in the plan, separated by commas [all]
#   EPOCHS   number of epochs; for small and copies, of the last step [as in the plan]
#   JOBS     number of parallel training runs, which share the CPU cores [1]
#   DOCS     Markdown file whose tables are updated [OUT/evidence.md]
#
# VENV and PYTHON: see shell/env.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=shell/env.sh
. "$here/env.sh"
if help_wanted "$0" "$@"; then exit; fi
size=${1:-cpu}
[ -n "${PHOTOS:-}" ] || {
    echo "evidence.sh: PHOTOS is not set; set it to a folder of photos: PHOTOS=DIR bash $0" >&2
    exit 2
}
make_environment benco,report
OUT=${OUT:-runs/evidence/$size}
flags=(--photos "$PHOTOS" --out "$OUT")
[ -z "${LABELS:-}" ] || flags+=(--labels "$LABELS")
[ -z "${NOISEPRINT:-}" ] || flags+=(--noiseprint "$NOISEPRINT")
[ -z "${MINUTES:-}" ] || flags+=(--minutes "$MINUTES")
[ -z "${EPOCHS:-}" ] || flags+=(--epochs "$EPOCHS")
[ -z "${JOBS:-}" ] || flags+=(--jobs "$JOBS")
[ -z "${ROWS:-}" ] || flags+=(--rows "$ROWS")
read -r -a seeds <<<"${SEEDS:-}"
[ ${#seeds[@]} -eq 0 ] || flags+=(--seeds "${seeds[@]}")
read -r -a real <<<"${REAL:-}"
[ ${#real[@]} -eq 0 ] || flags+=(--real "${real[@]}")
PYTHONPATH=$here/.. python -m benchmarks.evidence "$size" "${flags[@]}"
if [ "$size" != small ] && [ "$size" != copies ]; then
    PYTHONPATH=$here/.. python -m benchmarks.evidence.page "$size" --out "$OUT" \
        ${NOISEPRINT:+--noiseprint "$NOISEPRINT"} ${DOCS:+--docs "$DOCS"}
fi
if [ "$size" = small ]; then
    PYTHONPATH=$here/.. python -m benchmarks.evidence.ship --photos "$PHOTOS" --out "$OUT" \
        --half "${HALF:-validation}" ${LABELS:+--labels "$LABELS"} ${EPOCHS:+--epochs "$EPOCHS"} \
        --real ${real[@]+"${real[@]}"}
fi
