# Installs cotrain under ${COTRAIN_HOME:-$HOME/.cotrain} and joins a session. Arguments go to `cotrain node join`:
#   curl -fsSL ADDRESS-OF-THIS-SCRIPT | sh -s -- --name my-machine
# All of it is functions, called in the last line: a script that arrives in part does nothing, and no command reads from
# the standard input what the shell has not read yet.
set -eu

cpu_index=https://download.pytorch.org/whl/cpu
older_cuda_index=https://download.pytorch.org/whl/cu126

say() { printf '%s\n' "$*" >&2; }

# exit code, lines
stop() {
    code=$1
    shift
    for line in "$@"; do say "$line"; done
    exit "$code"
}

check_platform() {
    platform="$(uname -s) $(uname -m)"
    case $platform in
    "Linux x86_64" | "Linux aarch64" | "Darwin arm64") ;;
    *) stop 69 "cotrain runs on Linux (x86_64, aarch64) and macOS (arm64), not on $platform; on Windows use WSL2" ;;
    esac
}

find_python() {
    for python in python3.11 python3.12 python3.13 python3 python; do
        if command -v "$python" >/dev/null 2>&1 &&
            "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' </dev/null >/dev/null 2>&1; then
            return
        fi
    done
    case $platform in
    Darwin*) stop 69 "cotrain needs Python 3.11 or newer, and there is none here" "to get it: brew install python@3.12" ;;
    *) stop 69 "cotrain needs Python 3.11 or newer, and there is none here" \
        "to get it: sudo apt-get install python3 python3-venv (or what your distribution has in its place)" ;;
    esac
}

pip() { "$environment/bin/python" -m pip --disable-pip-version-check --quiet "$@" </dev/null >&2; }

make_environment() {
    # an environment without pip is one that could not be finished
    if [ -x "$environment/bin/python" ] && pip --version >/dev/null 2>&1; then
        return
    fi
    say "making a virtual environment in $environment"
    "$python" -m venv "$environment" </dev/null >&2 ||
        stop 69 "it could not be made" "on Debian and Ubuntu: sudo apt-get install python3-venv"
}

# The version of CUDA that the driver runs, as one number: 1206 is 12.6. 0 without a GPU.
cuda_version() {
    if ! command -v nvidia-smi >/dev/null 2>&1; then
        echo 0
        return
    fi
    found=$(nvidia-smi 2>/dev/null </dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    # shellcheck disable=SC2086  # two words
    set -- $found
    echo $((${1:-0} * 100 + ${2:-0}))
}

install_torch() {
    case $platform in
    Darwin*) cuda=1300 ;; # the index has one build for it
    *) cuda=$(cuda_version) ;;
    esac
    if [ "$cuda" -ge 1300 ]; then
        say "installing torch"
        pip install torch
    elif [ "$cuda" -ge 1206 ]; then
        say "installing torch for CUDA 12"
        pip install --index-url "$older_cuda_index" torch
    else
        [ "$cuda" -eq 0 ] || say "the NVIDIA driver is too old for torch: with a newer one this script uses the GPU"
        say "installing torch without CUDA"
        pip install --index-url "$cpu_index" torch
    fi
}

main() {
    check_platform
    find_python
    environment=${COTRAIN_HOME:-$HOME/.cotrain}/venv
    make_environment
    install_torch || stop 69 "torch could not be installed: see above" "run this again to go on"
    say "installing cotrain"
    pip install --upgrade "$package" || stop 69 "cotrain could not be installed: see above" "run this again to go on"
    say "joining $session_name"
    exec "$environment/bin/cotrain" node join "$session_url" "$@"
}

main "$@"
