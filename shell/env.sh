# shellcheck shell=bash
# Sourced by the other scripts: makes QMA-Net's environment, once.
#
#   VENV     where it is (default: .venv in the repository)
#   PYTHON   the Python 3.11 or 3.12 to make it with (default: the first one found)

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
    local extras=$1 root venv stamp python
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    venv=${VENV:-$root/.venv}
    stamp=$venv/.qma-net-$(cat "$root/setup.py" <(echo "$extras") | cksum | cut -d' ' -f1)
    if [ ! -e "$stamp" ]; then
        python=$(find_python) || return 1
        echo "installing QMA-Net and what it needs into $venv (about 6 GB, some minutes)"
        "$python" -m venv "$venv" || return 1
        "$venv/bin/python" -m pip install --quiet --upgrade pip || return 1
        "$venv/bin/python" -m pip install --quiet --editable "${root}[$extras]" || return 1
        touch "$stamp"
    fi
    # shellcheck disable=SC1091
    . "$venv/bin/activate"
}
