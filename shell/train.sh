#!/usr/bin/env bash
# Train QMA-Net with the paper's recipe (section 4.1) and BenCo's train.py. To train one of BenCo's
# models with the same recipe, run MODEL=Mesorch bash shell/train.sh [flags of the model]; to train
# it with its own recipe, run MODEL=Mesorch RECIPE=own bash shell/train.sh.
#
#   GPUS=4 bash shell/train.sh [--dry-run] [BenCo's flags, e.g. --seed 1]
#   NODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 GPUS=4 bash shell/train.sh
#                                                (on each node, with NODE_RANK 0 and 1)
#
# Run it again to resume from the newest intact checkpoint in OUT; a finished run is left
# unchanged. A checkpoint is saved after every epoch; the two most recent and every 25th are kept,
# about 15 GB in total with size b3. docs/training.md describes the output and how to stop a run.
#
#   TOTAL_BATCH images per optimizer step; a value other than 32 differs from the paper
#               [32, or as in the recipe]
#   BATCH       images per GPU and batch [TOTAL_BATCH / number of GPUs, at most 8; with RECIPE=own, also
#               at most the recipe's images per batch over all of its GPUs / number of GPUs, and at most
#               its images per GPU instead of 8]
#   ACCUM       batches per optimizer step [TOTAL_BATCH / BATCH / number of GPUs]
#   TEST_SETS   test sets during training; the default omits the 4,133 images of CocoGlide and
#               AutoSplice, which would take hours [$DATA/test_sets_train.json]
#   SIZE        size of both encoders, b0 to b5 [b3]
#   BACKBONE    ImageNet weights, a Hugging Face Hub ID or a path; leave it empty to start from random
#               weights [nvidia/mit-$SIZE]
#   NOISEPRINT  path to noiseprint++.th; leave it empty, and add --views srm,bayar, to omit
#               NoisePrint++ [noiseprint++.th]
#               (SIZE, BACKBONE and NOISEPRINT apply to QMA-Net; pass other models their own flags)
#   PHASE2      checkpoint of TruFor's second phase; trains its third phase, which starts from these
#               weights, in OUT [runs/Trufor-phase-3]
#   DICE_SMOOTHING  smoothing of QMA-Net's Dice losses as a share of the image area; it matters for
#               authentic images, which Protocol-CAT does not contain [1e-6 if TRAIN_DATA is a
#               protocol_cat.json, otherwise 0.003]
#   CHECK       0 skips the data check at startup (--no-check) [1]
#   RESTARTS    how often torchrun restarts all processes after one of them dies [3; 0 with several
#               nodes, where restarts are not tested: run the same command again instead]
#   ALLOW       data check problems to ignore, separated by commas []
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TEST_SETS=${TEST_SETS:-${DATA:-data}/test_sets_train.json}
OUT=${OUT:-${PHASE2:+runs/Trufor-phase-3}}
# shellcheck source=shell/common.sh
. "$here/common.sh" "$@"

gpus=$((NODES * processes))
TOTAL_BATCH=${TOTAL_BATCH:-32}
whole_number TOTAL_BATCH 1
share=$((TOTAL_BATCH / gpus)) largest=${recipe_batch:-8} origin=paper
if [ -n "$recipe_gpus" ]; then # Batch norm sees all images that are on the GPUs at a time.
    published=$((recipe_gpus * recipe_batch / gpus))
    share=$((share > published ? published : share)) origin="recipe of $MODEL"
fi
share=$((share > largest ? largest : share < 1 ? 1 : share))
BATCH=${BATCH:-$share}
whole_number BATCH 1
steps=$((TOTAL_BATCH / (BATCH * gpus)))
ACCUM=${ACCUM:-$((steps > 0 ? steps : 1))}
whole_number ACCUM 1
product=$((BATCH * ACCUM * gpus))
[ "$product" -eq "$TOTAL_BATCH" ] ||
    fail "batch $BATCH per GPU x accumulation $ACCUM x $gpus GPUs = $product images per step" \
        "instead of $TOTAL_BATCH; change BATCH, ACCUM, GPUS or NODES, or set TOTAL_BATCH=$product," \
        "which differs from the $origin"

last=$OUT/checkpoint-$((EPOCHS - 1)).pth
# The row in log.txt is written last; if it is missing, the epoch has not been tested yet.
if [ -e "$last" ] && { [ ! -e "$OUT/log.txt" ] ||
    grep -q "\"epoch\": $((EPOCHS - 1))}" "$OUT/log.txt"; }; then
    say "$last exists, so this training run is finished (set OUT to start another one)"
    exit 0
fi
saved=("$OUT"/checkpoint-*.pth) # A resumed run takes all weights from its checkpoint.
take_architecture "${saved[0]}"
if [ "$MODEL" = QMANet ]; then
    BACKBONE=${BACKBONE-nvidia/mit-$SIZE}
    case $TRAIN_DATA in */protocol_cat.json | protocol_cat.json) smoothing=1e-6 ;; *) smoothing=0.003 ;; esac
    architecture+=(--dice_smoothing "${DICE_SMOOTHING:-$smoothing}")
    [ -z "$BACKBONE" ] || architecture+=(--backbone_weights "$BACKBONE")
fi
if [ -n "${PHASE2:-}" ]; then
    [ "$MODEL" = Trufor ] || fail "MODEL=$MODEL is not supported: PHASE2 applies to MODEL=Trufor"
    need_file PHASE2 "train the second phase first: MODEL=Trufor RECIPE=own bash shell/train.sh"
    # BenCo's TruFor reads a bare state dict, not a checkpoint of BenCo.
    run "$python" -m qma_net convert "$PHASE2" --state-dict --out "$OUT/phase-2.pt"
    flags+=(--phase 3 --det_resume_ckpt "$OUT/phase-2.pt")
fi
need_file TRAIN_DATA "create it with qma-net data prepare and qma-net data protocol cat --root $DATA"
need_file TEST_SETS "create it with qma-net data prepare and qma-net data protocol cat --root $DATA"
check=()
[ -z "${ALLOW:-}" ] || check+=(--allow "$ALLOW")
[ "${CHECK:-1}" != 0 ] || check+=(--no_data_check)

RESTARTS=${RESTARTS:-$((NODES == 1 ? 3 : 0))}
whole_number RESTARTS 0
restarts=(--max-restarts "$RESTARTS")

schedule=(--lr 1e-4 --min_lr 5e-7 --weight_decay 0.05 --warmup_epochs 2 --test_period 5)
[ ${#recipe_train[@]} -eq 0 ] || schedule=("${recipe_train[@]}")

replace=1 # torchrun replaces this process, so that it receives Slurm's signals
benco torchrun train "${architecture[@]}" \
    --data_path "$TRAIN_DATA" --test_data_path "$TEST_SETS" \
    --batch_size "$BATCH" --accum_iter "$ACCUM" --epochs "$EPOCHS" \
    "${schedule[@]}" --test_batch_size 4 \
    --output_dir "$OUT" --log_dir "$OUT" --resume auto "${check[@]}"
