# Sourced by scripts/demo and scripts/test: make .venv hold noisekit with the extras named in $1, then activate it.
# A second run with unchanged requirements installs nothing.

prepare_environment() {
    local extras=$1 python stamp site
    for python in python3.13 python3.12 python3.11 python3 python; do
        if command -v "$python" >/dev/null 2>&1 &&
            "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            break
        fi
        python=
    done
    if [ -z "$python" ]; then
        echo "noisekit needs Python 3.11 or later with its venv module; none was found on PATH." >&2
        exit 1
    fi
    [ -x .venv/bin/pip ] || "$python" -m venv .venv
    # shellcheck disable=SC1091
    . .venv/bin/activate
    stamp=.venv/installed-${extras:-core}
    if ! cat pyproject.toml constraints.txt | cmp -s - "$stamp"; then
        echo "Installing noisekit into .venv (this can take a few minutes) ..." >&2
        python -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
            --no-compile --constraint constraints.txt --editable ".${extras:+[$extras]}"
        # On all cores, and without the tests of other packages: pip would take one core and everything.
        site=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        python -W ignore -m compileall -qq -j 0 -x '/tests/' "$site" || true
        cat pyproject.toml constraints.txt >"$stamp"
    fi
}
