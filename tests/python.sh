#!/bin/sh
# The Python package and the NumPy example on the built library: python.sh LIBRARY. SKIP without numpy or pytest.
set -eu
cd "$(dirname "$0")/.."
for python in /usr/bin/python3 python3; do
    "$python" -c 'import numpy, pytest' 2>/dev/null || continue
    export LIGHTHOUSE_LIBRARY="$1" PYTHONPATH=python PYTHONDONTWRITEBYTECODE=1
    "$python" -m pytest -q -p no:cacheprovider python/tests
    "$python" examples/numpy_port.py
    exit
done
echo "SKIP: no python3 with numpy and pytest (Debian: python3-numpy python3-pytest)"
exit 77
