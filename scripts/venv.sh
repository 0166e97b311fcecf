#!/bin/sh
# Make the virtual environment: venv.sh PYTHON VENV [dev]
# Installs the gateway in place with the versions of constraints.txt; with `dev` what the checks and tests need as well.
set -eu

python=$1 venv=$2 group=${3-}

die() {
    echo "mq-gateway: $*" >&2
    exit 1
}

as_root_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$1"
}

check_python() {
    command -v "$python" >/dev/null || die "$python is not installed; Python 3.11 or newer is needed (make PYTHON=python3.12 names another one)"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "Python 3.11 or newer is needed, $python is $("$python" -V 2>&1); make PYTHON=python3.12 names another one"
}

# Debian and Ubuntu keep ensurepip in a package of its own.
check_ensurepip() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null && return
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    as_root_install "$package" || as_root_install python3-venv ||
        die "$python has no venv module; install it, as root: apt-get install $package"
}

if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    check_python
    check_ensurepip
    "$python" -m venv --clear "$venv"
fi
"$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$venv was made with $("$venv/bin/python" -V 2>&1), 3.11 or newer is needed: remove it and try again"

set -- "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
"$@" pip setuptools
# Without isolation: the build uses the pinned setuptools, not whichever is the newest.
# Warnings of the build are for its developers, not for who installs it.
PYTHONWARNINGS=ignore "$@" --no-build-isolation --editable .
[ -z "$group" ] || "$@" --group "$group"
