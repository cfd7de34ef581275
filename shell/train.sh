#!/usr/bin/env bash
# Trains QMA-Net as the paper does (4.1), with BenCo's own train.py; or one of BenCo's models by the
# same recipe: MODEL=Mesorch bash shell/train.sh [its flags].
#
#   GPUS=4 bash shell/train.sh [--dry-run] [BenCo's flags, e.g. --seed 1]
#   NODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 GPUS=4 bash shell/train.sh     on each node, 0 and 1
#
# Started again it continues from the newest whole checkpoint in OUT; a finished training is left
# alone. A checkpoint is saved every epoch; the last two and every 25th are kept, some 15 GB in all
# at the size b3. docs/training.md tells how to stop it, and what it writes.
#
#   TOTAL_BATCH images in a step; another number is another recipe than the paper's [32]
#   BATCH       images per GPU at once [what TOTAL_BATCH leaves for a GPU, at most 8]
#   ACCUM       batches to a step [TOTAL_BATCH / BATCH / all GPUs]
#   TEST_SETS   what is tested on between the epochs: the paper's four sets; AutoSplice's 3,621
#               images would cost hours [$DATA/test_sets_train.json]
#   SIZE        of both encoders, b0 to b5 [b3]
#   BACKBONE    ImageNet weights, a name of Hugging Face or a path; empty: none [nvidia/mit-$SIZE]
#   NOISEPRINT  noiseprint++.th; empty, with --views srm,bayar: none [noiseprint++.th]
#               (these three are QMA-Net's; with another MODEL give its own flags)
#   CHECK       0: no check of the data before the start (--no_data_check) [1]
#   RESTARTS    how often torchrun starts all processes anew after one has died
#               [3; 0 on several nodes, where it was not tried: start the same command again]
#   ALLOW       problems of qma-net data check that are right here, by comma []
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TEST_SETS=${TEST_SETS:-${DATA:-data}/test_sets_train.json}
# shellcheck source=shell/common.sh
. "$here/common.sh" "$@"

gpus=$((NODES * processes))
TOTAL_BATCH=${TOTAL_BATCH:-32}
whole_number TOTAL_BATCH 1
share=$((TOTAL_BATCH / gpus))
share=$((share > 8 ? 8 : share < 1 ? 1 : share))
BATCH=${BATCH:-$share}
whole_number BATCH 1
steps=$((TOTAL_BATCH / (BATCH * gpus)))
ACCUM=${ACCUM:-$((steps > 0 ? steps : 1))}
whole_number ACCUM 1
product=$((BATCH * ACCUM * gpus))
[ "$product" -eq "$TOTAL_BATCH" ] ||
    fail "got batch $BATCH per GPU x accumulation $ACCUM x $gpus GPUs = $product, expected" \
        "$TOTAL_BATCH: change BATCH, ACCUM, GPUS or NODES (TOTAL_BATCH=$product is another recipe)"

last=$OUT/checkpoint-$((EPOCHS - 1)).pth
# The row of log.txt is the last thing of an epoch; without it the tests are still to be made.
if [ -e "$last" ] && { [ ! -e "$OUT/log.txt" ] ||
    grep -q "\"epoch\": $((EPOCHS - 1))}" "$OUT/log.txt"; }; then
    say "$last is there already, this training is finished (for another, set OUT)"
    exit 0
fi
take_architecture
if [ "$MODEL" = QMANet ]; then
    BACKBONE=${BACKBONE-nvidia/mit-$SIZE}
    [ -z "$BACKBONE" ] || architecture+=(--backbone_weights "$BACKBONE")
fi
need_file TRAIN_DATA "qma-net data prepare and qma-net data protocol cat --root $DATA make it"
need_file TEST_SETS "qma-net data prepare and qma-net data protocol cat --root $DATA make it"
check=()
[ -z "${ALLOW:-}" ] || check+=(--allow "$ALLOW")
[ "${CHECK:-1}" != 0 ] || check+=(--no_data_check)

RESTARTS=${RESTARTS:-$((NODES == 1 ? 3 : 0))}
whole_number RESTARTS 0
restarts=(--max-restarts "$RESTARTS")

replace=1 # torchrun takes this process's place, so that a signal of Slurm reaches it
benco torchrun train "${architecture[@]}" \
    --data_path "$TRAIN_DATA" --test_data_path "$TEST_SETS" \
    --batch_size "$BATCH" --accum_iter "$ACCUM" --epochs "$EPOCHS" \
    --lr 1e-4 --min_lr 5e-7 --weight_decay 0.05 --warmup_epochs 2 \
    --test_batch_size 4 --test_period 5 \
    --output_dir "$OUT" --log_dir "$OUT" --resume auto "${check[@]}"
