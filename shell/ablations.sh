#!/usr/bin/env bash
# Train and evaluate the settings of Tables 2 and 9 and those that the paper's reviewers asked for
# (benco_configs/ablations.yaml) one after another, with train.sh and evaluate.sh. Finished settings are skipped, and interrupted ones are
# resumed.
#
#   GPUS=4 bash shell/ablations.sh [--dry-run] [--only NAME,...] [BenCo's flags for training]
#
# The results of each setting are written to OUT/<name>. All variables of train.sh and evaluate.sh
# can be set as well.
#
#   NOISEPRINT  path to noiseprint++.th, for settings with this view [noiseprint++.th]
#   OUT         root folder of the ablation runs [runs/ablations]
#   FULL        folder of the full model, which appears in both tables; it is trained only if
#               train.sh has not trained it there [runs/cat]
#   CHECKPOINT  "best" evaluates the checkpoint in the folder best/ of each setting
#               [the checkpoint of the last epoch]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=${OUT:-runs/ablations}
# shellcheck source=shell/common.sh
. "$here/common.sh" "$@"

[ "$MODEL" = QMANet ] || fail "MODEL=$MODEL is not supported: the ablations use flags of QMANet"
only='' training=()
while [ ${#flags[@]} -gt 0 ]; do
    case ${flags[0]} in
        --only)
            [ ${#flags[@]} -gt 1 ] || fail "--only requires names: --only NAME,..."
            only=${flags[1]} flags=("${flags[@]:1}")
            ;;
        --only=*) only=${flags[0]#--only=} ;;
        *) training+=("${flags[0]}") ;;
    esac
    flags=("${flags[@]:1}")
done

evaluated_in=evaluate # as in evaluate.sh
[ "${CHECKPOINT:-}" != best ] || evaluated_in=evaluate-best

# One line per training run, with columns separated by tabs: name, folder, whether it has been
# evaluated, flags.
list=$("$python" - "$here/../benco_configs/ablations.yaml" "$only" "$TEST_SETS" \
    "$OUT" "${FULL:-runs/cat}" "$evaluated_in" <<'END'
import json, sys
from pathlib import Path

import yaml

file, only, test_sets, out, full, evaluated_in = sys.argv[1:]
entries = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
names = [entry["name"] for entry in entries]
chosen = [name for name in only.split(",") if name] or names
unknown = [name for name in chosen if name not in names]
if unknown:
    sys.exit(f"ablations.sh: unknown setting --only {unknown[0]}; choose from {', '.join(names)}")
sets = json.loads(Path(test_sets).read_text()) if Path(test_sets).is_file() else {"?": ""}
trained = []
for entry in entries:
    if entry["name"] in chosen and entry["flags"] not in trained:
        trained.append(entry["flags"])
        # Entries with equal flags share the folder of the first one.
        first = next(other["name"] for other in entries if other["flags"] == entry["flags"])
        folder = Path(out, first) if entry["flags"] else Path(full)
        done = all((folder / evaluated_in / f"{name}.json").is_file() for name in sets)
        flags = " ".join(f"--{flag} {value}" for flag, value in entry["flags"].items())
        print(entry["name"], folder, "yes" if done else "no", flags, sep="\t")
END
)

number=0
while IFS=$'\t' read -r -u 3 name folder evaluated words; do
    read -r -a setting <<<"$words"
    say "$name, in $folder: ${words:-the model of the paper}"
    export OUT=$folder
    # Passing NoisePrint++'s weights without its view would be an error.
    noiseprint=${NOISEPRINT-noiseprint++.th}
    case $words in *noiseprint*) ;; *--views*) noiseprint='' ;; esac
    # Each start has its own port, so that a node that is early does not join the previous start.
    NOISEPRINT=$noiseprint MASTER_PORT=$((MASTER_PORT + 2 * number)) bash "$here/train.sh" ${dry_run:+"$dry_run"} \
        "${setting[@]}" "${training[@]}"
    if [ "$evaluated" = yes ]; then
        say "$folder/$evaluated_in already contains all test sets"
    else
        MASTER_PORT=$((MASTER_PORT + 2 * number + 1)) bash "$here/evaluate.sh" \
            ${dry_run:+"$dry_run"}
    fi
    number=$((number + 1))
done 3<<<"$list"
