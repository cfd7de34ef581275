#!/usr/bin/env bash
# Run one of the other scripts as a Slurm job, with torchrun on every node.
#
#   sbatch --nodes=2 --gpus-per-node=4 shell/slurm.sh train [its flags]       in the repository
#   NODES=2 GPUS=4 bash shell/slurm.sh train --dry-run                        without a cluster
#
# The script is one of train, evaluate, benco-test, robust, save-images, complexity and ablations,
# followed by its flags. Export its variables before calling sbatch. A training run is asked to stop
# two minutes before the time limit; it resumes if the job is requeued or if you run the same sbatch
# command again. The script sets NODES, GPUS, NODE_RANK and MASTER_ADDR from Slurm's variables.
#
#   MASTER_PORT free port on the first machine [20000 + job ID modulo 12000]
#   SHELL_DIR   folder of these scripts [shell, in the folder where sbatch was called]

#SBATCH --job-name=qma-net
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=2-00:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --output=slurm-%j.log
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ ! -e "$here/common.sh" ]; then # Slurm runs a copy of this file.
    here=${SHELL_DIR:-${SLURM_SUBMIT_DIR:-.}/shell}
    if [ ! -e "$here/common.sh" ]; then
        echo "slurm.sh: cannot find $here/common.sh; call sbatch in the repository or set SHELL_DIR" \
            "to its shell folder" >&2
        exit 1
    fi
fi
if [ -n "${SLURM_JOB_ID:-}" ]; then
    unset NODE_RANK # It differs between tasks.
    NODES=${SLURM_JOB_NUM_NODES:-1} GPUS=${SLURM_GPUS_ON_NODE:-${GPUS:-1}}
    MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 12000))}
else
    MASTER_ADDR=${MASTER_ADDR:-first-node} NODE_RANK=${NODE_RANK:-0}
fi
export NODES GPUS MASTER_ADDR MASTER_PORT
# shellcheck source=shell/common.sh
. "$here/common.sh" "$@"

task=${flags[0]:-}
case $task in
    train | evaluate | benco-test | robust | save-images | complexity | ablations) ;;
    *) fail "unknown script '$task'; choose train, evaluate, benco-test, robust, save-images," \
        "complexity or ablations" ;;
esac
script=("$here/$task.sh" "${flags[@]:1}")
case $task in save-images | complexity) NODES=1 ;; esac # one process
start=(srun --nodes "$NODES" --ntasks "$NODES" --ntasks-per-node 1 --kill-on-bad-exit=1)
start+=(--cpus-per-task "${SLURM_CPUS_PER_TASK:-32}")
if [ -n "$dry_run" ]; then
    run "${start[@]}" bash "${script[@]}"
    NODE_RANK=0 bash "${script[@]}" --dry-run
elif [ -z "${SLURM_JOB_ID:-}" ]; then
    fail "not running in a Slurm job; use sbatch shell/slurm.sh $task, or add --dry-run"
else
    run "${start[@]}" bash "${script[@]}"
fi
