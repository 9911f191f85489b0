#!/usr/bin/env bash
# Makes .venv and installs this checkout with its tests and simulator, at the versions of constraints.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "setup: $*" >&2; exit 1; }

supported() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if [ ! -x .venv/bin/python ]; then
  python=
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if supported "$candidate"; then python=$candidate; break; fi
  done
  [ -n "$python" ] || fail "no Python 3.11 or newer; install one, or name it: make PYTHON=/path/to/python"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python lacks the venv module; type: sudo apt-get install -y python3-venv"
  "$python" -m venv .venv || { rm -rf .venv; fail "$python could not make .venv"; }
fi

pip() { .venv/bin/python -m pip --disable-pip-version-check "$@" </dev/null; }

# torch first: it is the largest download, and what everything else has to fit.
echo "setup: installing torch into .venv" >&2
pip install --quiet -c constraints.txt torch
echo "setup: installing mirror-analysis, its readers, simulators and tools" >&2
pip install --quiet -c constraints.txt -e '.[readers,gym,sim,dev]'
