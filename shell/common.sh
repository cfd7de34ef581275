# shellcheck shell=bash
# Sourced by the scripts of training and testing, with their flags. Only functions and defaults.
#
# Variables of all scripts, set in front (GPUS=4 DATA=/data bash shell/train.sh):
#   MODEL       a name of BenCo's registry; its own flags go behind the script's name [QMANet]
#   DATA        folder of the prepared datasets, the protocol and the test sets [data]
#   TRAIN_DATA  what is trained on [$DATA/protocol_cat.json, by qma-net data protocol cat]
#   TEST_SETS   what is tested on [$DATA/test_sets.json]
#   OUT         the run's folder, on a disk that all nodes see [runs/cat; runs/cat-MODEL for another]
#   EPOCHS      the run's length [150]
#   IMAGE_SIZE  side in pixels, resized [512]
#   WORKERS     processes that read images, per GPU [8]
#   GPUS        of this machine; 0: on the CPU [1]
#   PROCESSES   with GPUS=0: how many processes [1]
#   NODES       machines; the same command is started on each [1]
#   NODE_RANK   this machine's number, from 0 (SLURM_NODEID under Slurm)
#   MASTER_ADDR with several nodes: the first one's address
#   MASTER_PORT with several nodes: a free port there; a script that starts torchrun several
#               times takes the following ones too [29500]
#   VENV        environment to run in, if it is there; else python on the PATH [.venv]
#
# Flags: --dry-run prints the commands and starts nothing, --help prints this. All others go to
# BenCo's script (or to qma-net) as they are.

say() { echo "$(basename "$0"): $*" >&2; }

fail() {
    say "$@"
    exit 1
}

# The comment at the head of a script, without its first line.
header() { awk 'NR > 1 { if (!/^#( |$)/) exit; sub(/^# ?/, ""); print }' "$1"; }

whole_number() { # NAME LEAST
    if ! [[ ${!1} =~ ^[1-9][0-9]*$|^0$ ]] || [ "${!1}" -lt "$2" ]; then
        fail "got $1=${!1}, expected a whole number from $2 up"
    fi
}

need_file() { # NAME HINT: the variable NAME holds a path that is there
    [ -n "$dry_run" ] || [ -e "${!1}" ] || fail "got $1=${!1}, expected a file: there is none; $2"
}

run() { # prints the command, and starts it unless --dry-run was given; with replace=1 in this process
    local line
    printf -v line '%q ' "$@"
    if [ -n "$dry_run" ]; then
        echo "${line% }"
    else
        say "${line% }"
        ${replace:+exec} "$@"
    fi
}

torchrun() { # MODULE ARGUMENTS...: on all GPUS of all NODES
    local nodes=(--standalone)
    [ "$NODES" -eq 1 ] || nodes=(--nnodes "$NODES" --node_rank "$NODE_RANK"
        --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT")
    MASTER_PORT=$((MASTER_PORT + 1))
    run "$python" -m torch.distributed.run "${nodes[@]}" --nproc_per_node "$processes" \
        ${restarts[@]+"${restarts[@]}"} -m "$@"
}

one_process() { # MODULE ARGUMENTS...
    run "$python" -m "$@"
}

benco() { # torchrun|one_process SCRIPT FLAGS...: BenCo's own script
    "$1" qma_net.launch "$2" --model "$MODEL" --image_size "$IMAGE_SIZE" --if_resizing \
        --num_workers "$WORKERS" "${@:3}" "${benco_device[@]}" "${flags[@]}"
}

exact() { # evaluate|robust FLAGS...: our own evaluation
    torchrun qma_net "$1" --model "$MODEL" --image-size "$IMAGE_SIZE" --workers "$WORKERS" "${@:2}" \
        "${exact_device[@]}" "${flags[@]}"
}

take_flags() { # sets dry_run and flags
    dry_run='' flags=()
    local word
    for word in "$@"; do
        case $word in
            --help | -h)
                header "$0"
                echo
                header "${BASH_SOURCE[0]}" | sed -n '/^Variables of all/,$p'
                exit 0
                ;;
            --dry-run) dry_run=--dry-run ;;
            --batch_size | --batch_size=*) variable_of "$word" BATCH ;;
            --accum_iter | --accum_iter=*) variable_of "$word" ACCUM ;;
            --epochs | --epochs=*) variable_of "$word" EPOCHS ;;
            --output_dir | --output_dir=* | --out | --out=*) variable_of "$word" OUT ;;
            *) flags+=("$word") ;;
        esac
    done
}

variable_of() { fail "got $1, expected a variable, as the script computes with it: $2=..."; }

take_variables() {
    DATA=${DATA:-data}
    TRAIN_DATA=${TRAIN_DATA:-$DATA/protocol_cat.json}
    TEST_SETS=${TEST_SETS:-$DATA/test_sets.json}
    MODEL=${MODEL:-QMANet}
    if [ "$MODEL" = QMANet ]; then OUT=${OUT:-runs/cat}; else OUT=${OUT:-runs/cat-$MODEL}; fi
    EPOCHS=${EPOCHS:-150} IMAGE_SIZE=${IMAGE_SIZE:-512} WORKERS=${WORKERS:-8}
    GPUS=${GPUS:-1} PROCESSES=${PROCESSES:-1} NODES=${NODES:-1}
    NODE_RANK=${NODE_RANK:-${SLURM_NODEID:-}} MASTER_ADDR=${MASTER_ADDR:-}
    MASTER_PORT=${MASTER_PORT:-29500}
    VENV=${VENV:-$(dirname "${BASH_SOURCE[0]}")/../.venv}
    python=$VENV/bin/python
    [ -x "$python" ] || python=python
    command -v "$python" >/dev/null || python=python3

    local name
    for name in EPOCHS IMAGE_SIZE PROCESSES NODES MASTER_PORT; do whole_number "$name" 1; done
    for name in WORKERS GPUS; do whole_number "$name" 0; done
    if [ "$NODES" -gt 1 ]; then
        [ -n "$MASTER_ADDR" ] ||
            fail "got NODES=$NODES without MASTER_ADDR, expected the first node's address"
        [ -n "$NODE_RANK" ] ||
            fail "got NODES=$NODES without NODE_RANK, expected this node's number, from 0"
        whole_number NODE_RANK 0
        [ "$NODE_RANK" -lt "$NODES" ] ||
            fail "got NODE_RANK=$NODE_RANK, expected less than NODES=$NODES: they count from 0"
    fi
    processes=$GPUS benco_device=(--cudnn) exact_device=()
    if [ "$GPUS" -eq 0 ]; then
        processes=$PROCESSES benco_device=(--device cpu --no_pin_mem) exact_device=(--device cpu)
    fi
}

# Sets CHECKPOINT: the last epoch's, which no test set has picked, or with "best" the one that the
# mean over training's test sets picked; and results: the folder's ending for its results.
# shellcheck disable=SC2034 # results: the scripts use it
take_checkpoint() {
    results=''
    CHECKPOINT=${CHECKPOINT:-$OUT/checkpoint-$((EPOCHS - 1)).pth}
    if [ "$CHECKPOINT" = best ]; then
        results=-best
        CHECKPOINT=$({ find "$OUT/best" -maxdepth 1 -name 'checkpoint-*.pth' 2>/dev/null || true; } |
            sort -V | tail -n 1)
        CHECKPOINT=${CHECKPOINT:-$OUT/best/checkpoint-EPOCH.pth}
    fi
    need_file CHECKPOINT "train.sh writes the last epoch's to OUT (set OUT and EPOCHS, or CHECKPOINT)"
}

take_sets() { # DEFAULT: sets the paths of SETS, datasets or lists in DATA
    local name
    sets=()
    for name in ${SETS:-$1}; do
        sets+=("$DATA/$name")
        SETS=$DATA/$name need_file SETS "qma-net data prepare makes it"
    done
}

take_architecture() { # sets architecture: QMA-Net's size and NoisePrint++; another model has its own
    architecture=()
    [ "$MODEL" = QMANet ] || return 0
    SIZE=${SIZE:-b3}
    NOISEPRINT=${NOISEPRINT-noiseprint++.th}
    architecture=(--size "$SIZE")
    if [ -n "$NOISEPRINT" ]; then
        architecture+=(--noiseprint_weights "$NOISEPRINT")
        need_file NOISEPRINT "qma-net weights says where it is published"
    fi
}

replace='' restarts=() # train.sh sets them, for run and torchrun
take_flags "$@"
take_variables
