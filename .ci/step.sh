# What the scripts in .ci share; they source it from the project's directory.
# shellcheck shell=bash

# step COMMAND…: prints the command, then runs it.
step() {
    printf '\n== %s\n' "$*"
    "$@"
}

# fail MESSAGE: prints it and ends the script.
fail() {
    printf 'failed: %s\n' "$*" >&2
    exit 1
}

# need PROGRAM PACKAGE…: installs each package whose program is missing; only as root where there is apt-get.
need() {
    local missing=()
    while [ $# -gt 0 ]; do
        command -v "$1" >/dev/null || missing+=("$2")
        shift 2
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
        fail "missing packages: ${missing[*]}; install them (these are Debian's names), or run this as root where there is apt-get"
    fi
    step apt-get update -qq
    step apt-get install -y -qq --no-install-recommends "${missing[@]}"
}
