# shellcheck shell=bash
# Sourced by the other scripts: makes QMA-Net's environment, once.
#
#   VENV     where it is (default: .venv in the repository)
#   PYTHON   the Python 3.11 or 3.12 to make it with (default: the first one found)
#
# Where constraints/ has a file for that Python, exactly the versions tested are installed.

# help_wanted SCRIPT ARGUMENTS: prints the comment at the head of SCRIPT if --help is among them.
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
    echo "got no Python 3.11 or 3.12 (tried: ${PYTHON:-python3.12 python3.11 python3}), expected" \
        "one with venv: install it (Debian: apt-get install python3 python3-venv) or set PYTHON" >&2
    return 1
}

# make_environment EXTRAS: installs QMA-Net with these extras and activates the environment.
make_environment() {
    local extras=$1 root venv stamp python version tested constraints=()
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    venv=${VENV:-$root/.venv}
    stamp=$venv/.qma-net-$(cat "$root/pyproject.toml" "$root/setup.py" "$root"/constraints/*.txt <(echo "$extras") | cksum | cut -d' ' -f1)
    if [ ! -e "$stamp" ]; then
        python=$(find_python) || return 1
        version='import sys; print("%d.%d" % sys.version_info[:2])'
        tested=$("$python" -c "$version")
        if [ -x "$venv/bin/python" ] && [ "$("$venv/bin/python" -c "$version")" != "$tested" ]; then
            echo "got $venv of another Python than $python, which is $tested, expected one of it:" \
                "set VENV to another folder, or PYTHON to the one that made it" >&2
            return 1
        fi
        echo "installing QMA-Net and what it needs into $venv (about 6 GB, some minutes)"
        "$python" -m venv "$venv" || return 1
        "$venv/bin/python" -m pip install --quiet --upgrade pip || return 1
        tested=$root/constraints/python$tested.txt
        [ ! -e "$tested" ] || constraints=(--constraint "$tested")
        "$venv/bin/python" -m pip install --quiet ${constraints[@]+"${constraints[@]}"} \
            --editable "${root}[$extras]" || return 1
        touch "$stamp"
    fi
    # shellcheck disable=SC1091
    . "$venv/bin/activate"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    help_wanted "$0" "$@" && exit
    echo "env.sh: got a start of its own, expected to be sourced by demo.sh or test.sh" >&2
    exit 1
fi
