#!/usr/bin/env bash
# Gradescope runs this once, when it builds the autograder's image: Python 3.11 or newer, and the
# packages that the course needs, in the versions that it was tested with.
set -euo pipefail
cd "$(dirname "$0")"

find_python() {
  for name in python3.13 python3.12 python3.11 python3; do
    if command -v "$name" >/dev/null 2>&1 &&
      "$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return 0
    fi
  done
  return 1
}

if ! PYTHON=$(find_python); then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update
  if ! apt-get install -y python3.12 python3.12-venv && ! apt-get install -y python3.11 python3.11-venv; then
    # Ubuntu 22.04 has Python 3.10; this archive of packages has newer ones for it
    apt-get install -y software-properties-common
    add-apt-repository -y ppa:deadsnakes/ppa
    apt-get update
    apt-get install -y python3.12 python3.12-venv
  fi
  PYTHON=$(find_python)
fi

"$PYTHON" -m venv .venv
pip() { .venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check "$@"; }
pip @INDEX@@TORCH@
pip -c constraints.txt -r requirements.txt

# students' code runs as a user of its own, who reads Python and the course, but not the answers
chmod -R a+rX .
chmod -R go-rwx course/solutions course/src/gpt2/model.py
chmod a+rx "$(dirname "$PWD")"
