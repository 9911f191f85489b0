#!/usr/bin/env bash
# Sees to the OpenGL libraries the simulator draws with. Exits 0 when they are there, 1 when they are not.
set -euo pipefail
cd "$(dirname "$0")/.."

command="apt-get update && apt-get install -y --no-install-recommends libegl1 libgl1 libosmesa6"
python=.venv/bin/python
[ -x "$python" ] || python=python3

loadable() {
  "$python" - <<'PYTHON' 2>/dev/null
import ctypes, sys

def loads(*names):
    for name in names:
        try:
            ctypes.CDLL(name)
            return True
        except OSError:
            pass
    return False

egl = loads("libEGL.so.1") and loads("libGL.so.1", "libOpenGL.so.0")
sys.exit(not (egl or loads("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")))
PYTHON
}

install() { # with "" or "sudo -n"
  export DEBIAN_FRONTEND=noninteractive
  $1 apt-get update -qq &&
    # Newer releases have no libosmesa6; the other two are enough.
    { $1 apt-get install -y -qq --no-install-recommends libegl1 libgl1 libosmesa6 ||
      $1 apt-get install -y -qq --no-install-recommends libegl1 libgl1; }
}

loadable && exit 0
sudo=missing
if command -v apt-get >/dev/null; then
  if [ "$(id -u)" = 0 ]; then
    sudo=
  elif sudo -n true 2>/dev/null; then
    sudo="sudo -n env DEBIAN_FRONTEND=noninteractive"
  fi
fi
if [ "$sudo" != missing ]; then
  echo "opengl: installing libegl1 libgl1 libosmesa6" >&2
  install "$sudo" </dev/null >&2 || true
  loadable && exit 0
fi
echo "opengl: nothing for the simulator to draw with; type: sudo sh -c '$command'" >&2
exit 1
