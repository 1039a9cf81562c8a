# Sourced by deploy/quickstart.sh and tests/run.sh, from the repository's root.
#
#   setup_venv EXTRAS    makes .venv, or takes the present one if it is good, and installs the project with these
#                        extras in it (editable: the source tree is what runs)
#   setup_torch          installs torch in it, if it is not there
#
# Each returns non-zero after one line on stderr when something cannot be had. Nothing here reads stdin. pip obeys its
# own settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, pip.conf).
#
# Environment: PYTHON            the interpreter to use instead of looking for one
#              EMBERFS_TORCH     what to install as torch (default: torch==2.13.0); empty: do without

VENV=".venv"
VENV_PYTHON="$VENV/bin/python"
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

_say() { printf '%s\n' "$*" >&2; }

_fail() {
    _say "emberfs: $*"
    return 1
}

# Is $1 a Python of at least 3.11? With "venv" as $2: that can also make virtual environments?
_is_python() {
    local modules="sys"
    [ "${2:-}" = venv ] && modules="sys, venv, ensurepip"
    "$1" -c "import $modules; raise SystemExit(sys.version_info < (3, 11))" >/dev/null 2>&1 </dev/null
}

# Prints the first good Python. $1 as for _is_python's $2.
_find_python() {
    local name
    for name in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14 /usr/bin/python3}; do
        if _is_python "$name" "${1:-}"; then
            printf '%s\n' "$name"
            return 0
        fi
    done
    return 1
}

# apt-get install, as root or through sudo.
_apt_install() {
    local as_root=""
    command -v apt-get >/dev/null || { _fail "needs $* and finds no apt-get; install them and run again"; return 1; }
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { _fail "needs $*; install them as root and run again"; return 1; }
        as_root="sudo"
        [ -t 0 ] || as_root="sudo -n"
    fi
    _say "installing $* ..."
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null </dev/null \
        || { $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null \
            && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" \
                >/dev/null </dev/null; } \
        || { _fail "could not install $* with apt-get"; return 1; }
}

_make_venv() {
    local python
    if [ -e "$VENV" ] && [ ! -e "$VENV/pyvenv.cfg" ]; then
        _fail "$PWD/$VENV is not a virtual environment; move it away and run again"
        return 1
    fi
    if ! python="$(_find_python venv)"; then
        if [ -n "${PYTHON:-}" ]; then
            _fail "PYTHON=$PYTHON is not Python 3.11 or later with the modules venv and ensurepip"
            return 1
        fi
        # Debian splits venv off. A Python that lacks only that names the package by its version.
        if python="$(_find_python)"; then
            _apt_install "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv" || return 1
        else
            _apt_install python3 python3-venv || return 1
        fi
        python="$(_find_python venv)" \
            || { _fail "needs Python 3.11 or later with venv; this system's packages do not have it (see PYTHON=...)"; return 1; }
    fi
    _say "making $VENV with $("$python" --version) ..."
    rm -rf -- "$VENV"
    "$python" -m venv "$VENV" </dev/null || { _fail "could not make $PWD/$VENV with $python"; return 1; }
}

setup_venv() {
    local extras="$1" wanted stamp
    if ! { [ -x "$VENV_PYTHON" ] && _is_python "$VENV_PYTHON" && "$VENV_PYTHON" -m pip --version >/dev/null 2>&1; }; then
        _make_venv || return 1
    fi
    # A stamp says which requirements were installed, so that a second run costs nothing and a changed file is noticed.
    # It names the folder: an editable installation in a tree that was moved or copied points to the old one.
    stamp="$VENV/emberfs-installed-${extras//,/-}"
    wanted="$PWD $(sha256sum pyproject.toml)"
    if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return 0
    fi
    _say "installing emberfs[$extras] in $VENV ..."
    "$VENV_PYTHON" -m pip install -q -e ".[$extras]" </dev/null \
        || { _fail "pip could not install emberfs[$extras]; is a package index reachable (PIP_INDEX_URL)?"; return 1; }
    printf '%s\n' "$wanted" >"$stamp"
}

setup_torch() {
    local torch="${EMBERFS_TORCH-torch==2.13.0}"
    "$VENV_PYTHON" -c 'import importlib.util as u; raise SystemExit(u.find_spec("torch") is None)' && return 0
    [ -n "$torch" ] || { _fail "torch is not installed, and EMBERFS_TORCH says to do without"; return 1; }
    _say "installing $torch in $VENV (to have a build without CUDA, set PIP_EXTRA_INDEX_URL to an index of CPU builds) ..."
    "$VENV_PYTHON" -m pip install -q "$torch" </dev/null \
        || { _fail "pip could not install $torch; name an index that has it (PIP_EXTRA_INDEX_URL) or another build (EMBERFS_TORCH)"; return 1; }
}
