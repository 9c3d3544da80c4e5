#!/bin/sh
# PoCL as PyPI has it, beside the system's. Its GPU body is not run: PoCL before 5 crashes in a compiled select_parents with more
# than one work-item.
. "$(dirname "$0")/with.sh"
from_pypi pocl-binary-distribution
driver "$(find "$folder/venv" -name 'libpocl*.so*' -o -name 'libpocl.so*' | head -n 1)"
version
judge cpu "$@"
same_bits
