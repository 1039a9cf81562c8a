#!/usr/bin/env bash
# Builds pyverbs 59 for the Python given, with the libibverbs and the driver that belong to it, once, and prints the
# directory: `python` is for PYTHONPATH, `lib` for LD_LIBRARY_PATH. PyPI's package has all of rdma-core's source in it, and
# what pip makes of it imports only where the system's libraries are of the very same version.
# Exit code 77 says that something cannot be had here, in one line. Takes some minutes.
set -euo pipefail
PACKAGE="pyverbs==59.0"
CYTHON="cython==3.0.12"
# Later ones refuse its source.

say() { printf 'pyverbs 59: %s\n' "$*" >&2; }
skip() { say "$*"; exit 77; }
python="$1"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
cache="${XDG_CACHE_HOME:-$HOME/.cache}"
key="$({ cat -- "$here/pyverbs59.sh"; "$python" -c 'import sys; print(sys.version, sys.base_prefix)'; } | sha256sum | cut -c1-12)"
result="$cache/emberfs-rdma-guest-pyverbs59-$key"

# what command...: runs it quietly; its last line is the reason when it fails.
attempt() {
    local what="$1"
    shift
    "$@" >"$work/log" 2>&1 </dev/null || skip "$what: $(tail -n 1 -- "$work/log")"
}

mkdir -p "$cache"
exec 9>"$cache/emberfs-rdma-guest-pyverbs59.lock"
flock 9
if [ ! -d "$result" ]; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    work="$(mktemp -d "$cache/emberfs-rdma-guest-pyverbs59-$key.XXXXXX")"
    trap 'rm -rf -- "$work"' EXIT
    packages=(gcc libc6-dev cmake ninja-build pkg-config libnl-3-dev libnl-route-3-dev)
    if ! dpkg-query -W "${packages[@]}" >/dev/null 2>&1; then
        say "installing ${packages[*]}"
        attempt "apt-get update failed" "${as_root[@]}" timeout --kill-after=10 120 apt-get update -qq
        attempt "apt-get could not install ${packages[*]}" "${as_root[@]}" timeout --kill-after=10 300 \
            env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
    fi
    say "fetching $PACKAGE and building it, once: some minutes"
    attempt "no virtual environment" "$python" -m venv "$work/venv"
    attempt "pip could not install $CYTHON" "$work/venv/bin/python" -m pip install -q "$CYTHON"
    attempt "pip could not download $PACKAGE" "$work/venv/bin/python" -m pip download -q --no-deps \
        --no-binary :all: --dest "$work" "$PACKAGE"
    tar -xf "$work"/pyverbs-*.tar.gz -C "$work"
    mkdir "$work/build"
    cd "$work/build"
    # Configuration of drivers is the one of Debian's libraries.
    attempt "cmake failed" cmake -GNinja -DNO_MAN_PAGES=1 -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_SYSCONFDIR=/etc \
        -DPYTHON_EXECUTABLE="$work/venv/bin/python" -DCYTHON_EXECUTABLE="$work/venv/bin/cython" "$work"/pyverbs-*/rdma-core
    # The modules for single makers' devices are left out.
    mapfile -t modules < <(ninja -t targets all | sed -n 's/^\(python\/pyverbs\/[a-z_]*\.cpython[^:]*\.so\):.*/\1/p')
    attempt "the build failed" nice -n 10 ninja rxe-rdmav59 "${modules[@]}"
    mkdir -p "$work/result/python"
    cp -rL -- python/pyverbs "$work/result/python/pyverbs"
    cp -r -- lib "$work/result/lib"
    rm -f -- "$work"/result/lib/*.a
    mv -T -- "$work/result" "$result"
fi
touch -c "$result" 2>/dev/null || true
printf '%s\n' "$result"
