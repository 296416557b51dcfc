# Functions for the scripts in .ci, which source this file from the project's directory.
# shellcheck shell=bash

# step COMMAND…: prints the command, then runs it.
step() {
    printf '\n== %s\n' "$*"
    "$@"
}

# fail MESSAGE: prints the message and exits the script with 1.
fail() {
    printf 'failed: %s\n' "$*" >&2
    exit 1
}

# need PROGRAM PACKAGE…: installs the package of each missing program. Needs root and apt-get.
need() {
    local missing=()
    while [ $# -gt 0 ]; do
        command -v "$1" >/dev/null || missing+=("$2")
        shift 2
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
        fail "missing packages: ${missing[*]}; install them (Debian names), or run this as root on a system with apt-get"
    fi
    step apt-get update -qq
    step apt-get install -y -qq --no-install-recommends "${missing[@]}"
}
