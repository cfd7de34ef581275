#!/usr/bin/env bash
# Benchmarks that need a GPU, in about eight minutes; docs/benchmarks.md, section "GPU", shows results.
#
#   NOISEPRINT=DIR PHOTOS=DIR bash benchmarks/on_gpu.sh OUT
#
# NOISEPRINT contains noiseprint++.th and reference.npz, PHOTOS contains photos for training. Each part
# writes to a file in OUT and has its own time limit, so that a failure does not affect the others.
set -uo pipefail
out=${1:?"usage: NOISEPRINT=DIR PHOTOS=DIR bash $0 OUT"}
mkdir -p "$out"
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export PYTHONUNBUFFERED=1

part() { # NAME SECONDS COMMAND...
    local name=$1 limit=$2 started=$SECONDS
    shift 2
    timeout -k 5 "$limit" "$@" >"$out/$name.txt" 2>"$out/$name.err"
    echo "$name: exit code $?, $((SECONDS - started)) s"
}

weights=(--noiseprint "$NOISEPRINT/noiseprint++.th" --photos "$PHOTOS")
for mode in "" --compile; do
    part "step$mode" 120 python3 -m benchmarks.training --models QMANet --batches 8 16 --steps 61 \
        --cudnn on $mode "${weights[@]}" --out "$out/step$mode"
done
models=("QMA-Net b3" "QMA-Net b3 mixed" TruFor "TruFor mixed" Mesorch "Mesorch mixed")
part noiseprint 50 python3 -m benchmarks.noiseprint_cuda "$NOISEPRINT"/{noiseprint++.th,reference.npz}
part peers 80 python3 -m benchmarks.peers --sizes 512 --batches 1 8 32 --no-train --rounds 5 \
    --models "${models[@]}" SparseViT "SparseViT mixed" --out "$out/peers"
part training-300 85 python3 -m benchmarks.training --models QMANet --batches 8 --steps 300 \
    --cudnn on "${weights[@]}" --out "$out/training-300"
part training-batches 80 python3 -m benchmarks.training --models QMANet --batches 16 32 48 64 \
    --steps 41 --cudnn on "${weights[@]}" --out "$out/training-batches"
part training-cudnn-off 40 python3 -m benchmarks.training --models QMANet --batches 8 --steps 41 \
    --cudnn off "${weights[@]}" --out "$out/training-cudnn-off"
part parts 25 python3 -m benchmarks.parts --batch 8
