#!/usr/bin/env bash
# Makes a virtual environment and installs cotrain into it, torch first, everything by the pins in constraints.txt.
# Called by make, by the Dockerfile and by .ci/run. A second call with nothing changed returns at once.
#
#   scripts/install.sh [--dev]
#
# COTRAIN_VENV  where the environment goes (default: .venv in the checkout)
# PYTHON        the interpreter to build it with (default: python3)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras=""
[ "${1:-}" = "--dev" ] && extras="[dev]"
venv="${COTRAIN_VENV:-.venv}"
python="${PYTHON:-python3}"

if [ "$(uname -s)" != Linux ] || [ "$(uname -m)" != x86_64 ]; then
    echo "cotrain runs on Linux x86-64 (hivemind ships no other build); on Windows use WSL2." >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "cotrain needs Python 3.11 or newer; '$python' is not. Set PYTHON=/path/to/python3.11" >&2
    exit 1
fi

# the stamp names what is installed: other pins or other dependencies make it anew
fingerprint() { cat pyproject.toml constraints.txt scripts/install.sh | sha256sum | cut -d' ' -f1; }
stamp="$venv/.cotrain-installed"
wanted="$(fingerprint) $extras"
if [ -x "$venv/bin/cotrain" ] && { [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] ||
    [ "$(cat "$stamp" 2>/dev/null)" = "$(fingerprint) [dev]" ]; }; then
    exit 0
fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
echo "installing torch into $venv ..."
pip install --constraint constraints.txt torch
echo "installing cotrain${extras} ..."
pip install --constraint constraints.txt --editable ".${extras}"
echo "$wanted" >"$stamp"
echo "done: $venv/bin/cotrain"
