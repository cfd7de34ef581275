#!/usr/bin/env bash
# Train and evaluate the settings of Tables 2 and 9 (benco_configs/ablations.yaml), one after the
# other, with train.sh and evaluate.sh. Finished settings are skipped, and a stopped one resumes.
#
#   GPUS=4 bash shell/ablations.sh [--dry-run] [--only NAME,...] [BenCo's flags for training]
#
# Each setting has the folder OUT/<name>. All variables of train.sh and evaluate.sh apply.
#
#   OUT         here: the folder that contains the settings' folders [runs/ablations]
#   FULL        the folder of the complete model, a row of both tables, trained by train.sh or by
#               this script [runs/cat]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=${OUT:-runs/ablations}
# shellcheck source=shell/common.sh
. "$here/common.sh" "$@"

[ "$MODEL" = QMANet ] || fail "got MODEL=$MODEL, expected QMANet: the settings use its flags"
only='' training=()
while [ ${#flags[@]} -gt 0 ]; do
    case ${flags[0]} in
        --only)
            [ ${#flags[@]} -gt 1 ] || fail "got --only without names, expected --only NAME,..."
            only=${flags[1]} flags=("${flags[@]:1}")
            ;;
        --only=*) only=${flags[0]#--only=} ;;
        *) training+=("${flags[0]}") ;;
    esac
    flags=("${flags[@]:1}")
done

# A line per training, separated by tabs: name, folder, whether it is evaluated, flags.
list=$("$python" - "$here/../benco_configs/ablations.yaml" "$only" "$TEST_SETS" \
    "$OUT" "${FULL:-runs/cat}" <<'END'
import json, sys
from pathlib import Path

import yaml

file, only, test_sets, out, full = sys.argv[1:]
entries = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
names = [entry["name"] for entry in entries]
chosen = [name for name in only.split(",") if name] or names
unknown = [name for name in chosen if name not in names]
if unknown:
    sys.exit(f"ablations.sh: got --only {unknown[0]}, expected one of {', '.join(names)}")
sets = json.loads(Path(test_sets).read_text()) if Path(test_sets).is_file() else {"?": ""}
trained = []
for entry in entries:
    if entry["name"] in chosen and entry["flags"] not in trained:
        trained.append(entry["flags"])
        # Entries with equal flags share the folder of the first one.
        first = next(other["name"] for other in entries if other["flags"] == entry["flags"])
        folder = Path(out, first) if entry["flags"] else Path(full)
        done = all((folder / "evaluate" / f"{name}.json").is_file() for name in sets)
        flags = " ".join(f"--{flag} {value}" for flag, value in entry["flags"].items())
        print(entry["name"], folder, "yes" if done else "no", flags, sep="\t")
END
)

number=0
while IFS=$'\t' read -r -u 3 name folder evaluated words; do
    read -r -a setting <<<"$words"
    say "$name, in $folder: ${words:-the model of the paper}"
    export OUT=$folder
    # Each start has its own port, so that an early node does not join the previous start.
    MASTER_PORT=$((MASTER_PORT + 2 * number)) bash "$here/train.sh" ${dry_run:+"$dry_run"} \
        "${setting[@]}" "${training[@]}"
    if [ "$evaluated" = yes ]; then
        say "$folder/evaluate already contains all test sets"
    else
        MASTER_PORT=$((MASTER_PORT + 2 * number + 1)) bash "$here/evaluate.sh" \
            ${dry_run:+"$dry_run"}
    fi
    number=$((number + 1))
done 3<<<"$list"
