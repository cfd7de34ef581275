# shellcheck shell=bash
# Shared functions and defaults; the training and test scripts source this file and pass it their
# arguments.
#
# Variables of all scripts, set before the command (GPUS=4 DATA=/data bash shell/train.sh):
#   MODEL       name in BenCo's registry; pass the model's own flags after the script name [QMANet]
#   DATA        folder with the prepared datasets, the protocol and the test sets [data]
#   TRAIN_DATA  training data [$DATA/protocol_cat.json, from qma-net data protocol cat]
#   TEST_SETS   test sets [$DATA/test_sets.json; train.sh: see above]
#   RECIPE      paper: the settings of QMA-Net's paper for all models; own: the published recipe of
#               BenCo's model, with its flags (benco_configs/peers.yaml) [paper]
#   WEIGHTS     folder of the weight files that RECIPE=own names [weights]
#   OUT         output folder, on a disk shared by all nodes
#               [runs/cat; runs/cat-MODEL for others; runs/own-MODEL with RECIPE=own]
#   EPOCHS      number of epochs [150, or as in the recipe]
#   IMAGE_SIZE  side of the images in pixels after resizing or padding [512, or as in the recipe]
#   FIT         resize or pad the images to IMAGE_SIZE; padding crops larger images
#               [resize, or as in the recipe; evaluate.sh and robust.sh: as in training]
#   WORKERS     data loader workers per GPU [8]
#   GPUS        number of GPUs on this machine; 0 = CPU [1]
#   PROCESSES   number of processes if GPUS=0 [1]
#   NODES       number of machines; start the same command on each [1]
#   NODE_RANK   number of this machine, starting at 0 [SLURM_NODEID under Slurm]
#   MASTER_ADDR address of the first machine; required with several machines
#   MASTER_PORT free port on the first machine, for several machines; a script that starts torchrun
#               repeatedly also uses the ports that follow it [29500]
#   VENV        virtual environment; if it does not exist, python from the PATH is used [.venv]
#
# Flags: --dry-run prints the commands without running them, and --help prints this text. All other
# flags are passed to BenCo's script or to qma-net.

say() { echo "$(basename "$0"): $*" >&2; }

fail() {
    say "$@"
    exit 1
}

# Print the comment at the head of a script, without its first line.
header() { awk 'NR > 1 { if (!/^#( |$)/) exit; sub(/^# ?/, ""); print }' "$1"; }

whole_number() { # NAME MINIMUM: require that the variable NAME holds a whole number
    if ! [[ ${!1} =~ ^[1-9][0-9]*$|^0$ ]] || [ "${!1}" -lt "$2" ]; then
        fail "invalid $1=${!1}: expected a whole number of at least $2"
    fi
}

need_file() { # NAME HINT: require that the path in the variable NAME exists
    [ -n "$dry_run" ] || [ -e "${!1}" ] || fail "$1=${!1} does not exist; $2"
}

run() { # print the command and, without --dry-run, run it; replace=1 replaces this process
    local line
    printf -v line '%q ' "$@"
    if [ -n "$dry_run" ]; then
        echo "${line% }"
    else
        say "${line% }"
        ${replace:+exec} "$@"
    fi
}

torchrun() { # MODULE ARGUMENTS...: run on all GPUs of all nodes
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

benco() { # torchrun|one_process SCRIPT FLAGS...: run BenCo's script
    local own=("${recipe_model[@]}" "${recipe_benco[@]}") fit=--if_resizing
    case $2 in train | test_complexity) ;; *) own+=("${recipe_test[@]}") ;; esac
    [ "$FIT" = resize ] || fit=--if_padding
    need_weights "${@:3}" "${own[@]}"
    "$1" qma_net.launch "$2" --model "$MODEL" --image_size "$IMAGE_SIZE" "$fit" \
        --num_workers "$WORKERS" "${@:3}" "${benco_device[@]}" "${own[@]}" "${flags[@]}"
}

evaluation() { # evaluate|robust FLAGS...: run qma-net's evaluation
    need_weights "${recipe_model[@]}"
    torchrun qma_net "$1" --model "$MODEL" --image-size "$IMAGE_SIZE" --workers "$WORKERS" "${@:2}" \
        "${evaluation_fit[@]}" "${evaluation_device[@]}" "${recipe_model[@]}" "${flags[@]}"
}

need_weights() { # FLAGS...: require that the weight files of the recipe exist
    local word
    [ "$RECIPE" = own ] || return 0
    for word in "$@"; do
        case $word in
            "$WEIGHTS"/*)
                [ -n "$dry_run" ] || [ -e "$word" ] || fail "$word does not exist;" \
                    "benco_configs/peers.yaml describes where to get it, and WEIGHTS is its folder"
                ;;
        esac
    done
}

take_flags() { # set dry_run and flags
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
            --if_padding) variable_of "$word" FIT ;;
            --output_dir | --output_dir=* | --out | --out=*) variable_of "$word" OUT ;;
            *) flags+=("$word") ;;
        esac
    done
}

variable_of() { fail "use the variable $2=... instead of ${1%%=*}"; }

# Set the recipe of MODEL: the variables that are not set, and flags in recipe_<kind>.
# shellcheck disable=SC2034 # train.sh uses recipe_gpus and recipe_batch
take_recipe() {
    recipe_model=() recipe_train=() recipe_benco=() recipe_test=() recipe_gpus='' recipe_batch=''
    RECIPE=${RECIPE:-paper} WEIGHTS=${WEIGHTS:-weights}
    case $RECIPE in own | paper) ;; *) fail "invalid RECIPE=$RECIPE: expected own or paper" ;; esac
    [ "$MODEL" != QMANet ] || return 0
    local lines kind word name
    [ -z "${IMAGE_SIZE:-}" ] || whole_number IMAGE_SIZE 1
    lines=$("$python" -m qma_net.launch.recipes "$MODEL" --recipe "$RECIPE" --weights "$WEIGHTS" \
        ${IMAGE_SIZE:+--image-size "$IMAGE_SIZE"} -- "${flags[@]}" 2>&1) || fail "$lines"
    while read -r kind word; do
        case $kind in
            set)
                name=${word%% *}
                [ -n "${!name:-}" ] || printf -v "$name" %s "${word#* }"
                ;;
            model) recipe_model+=("$word") ;;
            train) recipe_train+=("$word") ;;
            benco) recipe_benco+=("$word") ;;
            test) recipe_test+=("$word") ;;
        esac
    done <<<"$lines"
}

take_variables() {
    DATA=${DATA:-data}
    TRAIN_DATA=${TRAIN_DATA:-$DATA/protocol_cat.json}
    TEST_SETS=${TEST_SETS:-$DATA/test_sets.json}
    MODEL=${MODEL:-QMANet}
    GPUS=${GPUS:-1} PROCESSES=${PROCESSES:-1} NODES=${NODES:-1}
    NODE_RANK=${NODE_RANK:-${SLURM_NODEID:-}} MASTER_ADDR=${MASTER_ADDR:-}
    MASTER_PORT=${MASTER_PORT:-29500}
    VENV=${VENV:-$(dirname "${BASH_SOURCE[0]}")/../.venv}
    python=$VENV/bin/python
    [ -x "$python" ] || python=python
    command -v "$python" >/dev/null || python=python3

    take_recipe
    evaluation_fit=(${FIT:+"--$FIT"}) # If neither FIT nor the recipe sets it, as in training.
    case $MODEL,$RECIPE in
        QMANet,*) OUT=${OUT:-runs/cat} ;;
        *,own) OUT=${OUT:-runs/own-$MODEL} ;;
        *) OUT=${OUT:-runs/cat-$MODEL} ;;
    esac
    EPOCHS=${EPOCHS:-150} IMAGE_SIZE=${IMAGE_SIZE:-512} FIT=${FIT:-resize} WORKERS=${WORKERS:-8}
    case $FIT in resize | pad) ;; *) fail "invalid FIT=$FIT: expected resize or pad" ;; esac

    local name
    for name in EPOCHS IMAGE_SIZE PROCESSES NODES MASTER_PORT; do whole_number "$name" 1; done
    for name in WORKERS GPUS; do whole_number "$name" 0; done
    if [ "$NODES" -gt 1 ]; then
        [ -n "$MASTER_ADDR" ] ||
            fail "NODES=$NODES requires MASTER_ADDR, the address of the first machine"
        [ -n "$NODE_RANK" ] ||
            fail "NODES=$NODES requires NODE_RANK, the number of this machine, starting at 0"
        whole_number NODE_RANK 0
        [ "$NODE_RANK" -lt "$NODES" ] ||
            fail "invalid NODE_RANK=$NODE_RANK: expected 0 to $((NODES - 1)) with NODES=$NODES"
    fi
    processes=$GPUS benco_device=(--cudnn) evaluation_device=()
    if [ "$GPUS" -eq 0 ]; then
        processes=$PROCESSES benco_device=(--device cpu --no_pin_mem) evaluation_device=(--device cpu)
    fi
}

# Set CHECKPOINT to the checkpoint of the last epoch or, for "best", to the one that was selected on
# the test sets used during training. Set results to the suffix of the folder for its results.
# shellcheck disable=SC2034 # the scripts use results
take_checkpoint() {
    results=''
    CHECKPOINT=${CHECKPOINT:-$OUT/checkpoint-$((EPOCHS - 1)).pth}
    if [ "$CHECKPOINT" = best ]; then
        results=-best
        CHECKPOINT=$({ find "$OUT/best" -maxdepth 1 -name 'checkpoint-*.pth' 2>/dev/null || true; } |
            sort -V | tail -n 1)
        CHECKPOINT=${CHECKPOINT:-$OUT/best/checkpoint-EPOCH.pth}
    fi
    need_file CHECKPOINT "train.sh writes the checkpoint of the last epoch to OUT (set OUT and EPOCHS, or CHECKPOINT)"
}

take_sets() { # DEFAULT: set sets to the paths of the datasets or lists that SETS names
    local name
    sets=()
    for name in ${SETS:-$1}; do
        sets+=("$DATA/$name")
        SETS=$DATA/$name need_file SETS "create it with qma-net data prepare"
    done
}

# Set architecture to the flags for the size of QMA-Net and for NoisePrint++, whose file is not
# needed if a checkpoint is given and exists.
take_architecture() { # CHECKPOINT
    architecture=()
    [ "$MODEL" = QMANet ] || return 0
    SIZE=${SIZE:-b3}
    NOISEPRINT=${NOISEPRINT-noiseprint++.th}
    architecture=(--size "$SIZE")
    if [ -n "$NOISEPRINT" ]; then
        architecture+=(--noiseprint_weights "$NOISEPRINT")
        [ -e "$1" ] || need_file NOISEPRINT "qma-net weights lists where to download it"
    fi
}

replace='' restarts=() # train.sh sets these for run and torchrun
take_flags "$@"
take_variables
