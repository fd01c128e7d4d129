#!/bin/sh
# Looks for what a build needs before it starts, and names each missing thing with the command that brings it.
set -u
cd "$(dirname "$0")/../.." || exit 2

system=$(uname -s) machine=$(uname -m)
if [ "$system" != Linux ] || [ "$machine" != x86_64 ]; then
    echo "error: detect is built and tested on x86-64 Linux; this is $system on $machine, for which it has no libtorch" >&2
    exit 2
fi

root=$([ "$(id -u)" = 0 ] || echo "sudo ")
# The command that installs packages here: names for apt-get, dnf, pacman.
packages() {
    if command -v apt-get >/dev/null; then echo "${root}apt-get install -y $1"
    elif command -v dnf >/dev/null; then echo "${root}dnf install -y $2"
    elif command -v pacman >/dev/null; then echo "${root}pacman -S --needed $3"
    else echo "install it with your system's package manager"; fi
}
missing=0
need() { # what, cure
    echo "missing: $1" >&2
    echo "    cure: $2" >&2
    missing=1
}

rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if ! command -v cargo >/dev/null || ! found=$(rustc --version 2>/dev/null); then
    need "Rust $rust or newer (cargo, rustc)" "curl -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$HOME/.cargo/env\""
else
    found=${found#rustc } found=${found%% *}
    if [ "$(printf '%s\n%s\n' "$rust" "$found" | sort -V | head -n 1)" != "$rust" ]; then
        need "Rust $rust or newer; $found is installed" "rustup update stable"
    fi
fi
if ! command -v "${CXX:-c++}" >/dev/null || ! command -v "${CC:-cc}" >/dev/null; then
    need "a C++ compiler (c++, cc)" "$(packages g++ gcc-c++ gcc)"
fi
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then
    need "Python 3.8 or newer (python3; it fetches libtorch)" "$(packages 'python3 python3-pip' python3-pip python-pip)"
fi
[ "$missing" = 0 ] || exit 2
