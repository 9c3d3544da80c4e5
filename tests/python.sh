#!/bin/sh
# The Python package and the NumPy example on the built library: python.sh LIBRARY; its tests of PyTorch: python.sh LIBRARY torch.
# With $LIGHTHOUSE_PYTHON, what bootstrap installed, or the first python3 that has the packages; SKIP without one.
set -eu
cd "$(dirname "$0")/.."
tests=python/tests
for python in ${LIGHTHOUSE_PYTHON:-} build-python/bin/python /usr/bin/python3 python3; do
    "$python" -c "import numpy, pytest${2:+, $2}" 2>/dev/null || continue
    export LIGHTHOUSE_LIBRARY="$1" PYTHONPATH=python PYTHONDONTWRITEBYTECODE=1
    if [ "${2:-}" = torch ]; then
        exec "$python" -m pytest -q -p no:cacheprovider $tests/test_torch*.py $tests/test_export.py
    fi
    "$python" -m pytest -q -p no:cacheprovider $tests --ignore-glob="*/test_torch*"
    "$python" examples/numpy_port.py
    exit
done
echo "SKIP: no python3 with numpy, pytest${2:+ and $2} (Debian: python3-numpy python3-pytest${2:+; PyPI: $2})"
exit 77
