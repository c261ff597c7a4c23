#!/bin/sh
# Everything a fresh Debian 12 lacks for building and testing calltrace: Debian's packages first, then setup.py.
set -eu

packages="ca-certificates gcc g++ libc6-dev make python3 python3-venv
    wine wine64 xvfb libgl1 libgl1-mesa-dri gcc-mingw-w64-x86-64 g++-mingw-w64-x86-64
    clang-14 clang-format-14 libclang-rt-14-dev lld-14 llvm-14
    chromium chromium-driver graphviz valgrind"

# Node.js' own packages bring npm themselves, and conflict with Debian's.
command -v npm >/dev/null || packages="$packages npm"

missing=""
for package in $packages; do
    case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true) in
    *" installed") ;;
    *) missing="$missing $package" ;;
    esac
done

if [ -n "$missing" ]; then
    root=""
    [ "$(id -u)" = 0 ] || root="sudo"
    echo "setup: installing$missing"
    $root apt-get -q update
    # shellcheck disable=SC2086 # one word per package is meant
    DEBIAN_FRONTEND=noninteractive $root apt-get -q install -y --no-install-recommends $missing
fi

exec /usr/bin/python3 "$(dirname "$0")/setup.py"
