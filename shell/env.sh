# shellcheck shell=bash
# Create and activate the environment of QMA-Net. test.sh, docs.sh, demo.sh, evidence.sh and
# endurance.sh source this file.
#
#   VENV     folder of the virtual environment [.venv in the repository]
#   PYTHON   Python 3.11 or 3.12 interpreter with which it is created [the first one found]
#
# If constraints/ has a file for this Python version, the tested versions of all packages are
# installed.

# help_wanted SCRIPT ARGUMENTS: print the comment at the top of SCRIPT if --help is an argument.
help_wanted() {
    case " ${*:2} " in
        *" --help "* | *" -h "*)
            awk 'NR > 1 { if (!/^#( |$)/) exit; sub(/^# ?/, ""); print }' "$1"
            ;;
        *) return 1 ;;
    esac
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.12 python3.11 python3}; do
        if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
            2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "cannot find Python 3.11 or 3.12 with venv (tried ${PYTHON:-python3.12 python3.11 python3});" \
        "install it (Debian: apt-get install python3 python3-venv) or set PYTHON" >&2
    return 1
}

# make_environment EXTRAS: install QMA-Net with these extras and activate the environment.
make_environment() {
    local extras=$1 root venv inputs stamp python version wanted constraints=()
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    venv=${VENV:-$root/.venv}
    # The stamp file marks an environment as up to date with these files.
    inputs=$(cat "$root/pyproject.toml" "$root/setup.py" "$root"/constraints/*.txt <(echo "$extras"))
    stamp=$venv/.qma-net-$(cksum <<<"$inputs" | cut -d' ' -f1)
    if [ ! -e "$stamp" ]; then
        python=$(find_python) || return 1
        version='import sys; print("%d.%d" % sys.version_info[:2])'
        wanted=$("$python" -c "$version")
        if [ -x "$venv/bin/python" ] && [ "$("$venv/bin/python" -c "$version")" != "$wanted" ]; then
            echo "the environment $venv uses a different Python version than $python ($wanted);" \
                "set VENV to a different folder, or PYTHON to the interpreter that created it" >&2
            return 1
        fi
        echo "installing QMA-Net and its dependencies into $venv (about 6 GB; this takes a few minutes)"
        "$python" -m venv "$venv" || return 1
        "$venv/bin/python" -m pip install --quiet --upgrade pip || return 1
        [ ! -e "$root/constraints/python$wanted.txt" ] ||
            constraints=(--constraint "$root/constraints/python$wanted.txt")
        "$venv/bin/python" -m pip install --quiet ${constraints[@]+"${constraints[@]}"} \
            --editable "${root}[$extras]" || return 1
        touch "$stamp"
    fi
    # shellcheck disable=SC1091
    . "$venv/bin/activate"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    help_wanted "$0" "$@" && exit
    echo "env.sh: other scripts source this file; run one of them instead, such as test.sh" >&2
    exit 1
fi
