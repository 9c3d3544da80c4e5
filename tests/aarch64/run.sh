#!/bin/sh
# run.sh [ARGUMENTS OF judge.py...]: the program and its suites built for AArch64 and judged under qemu-user. 77 where that cannot be built.
# KEEP=FOLDER keeps what was fetched and built for a second run.
folder=${KEEP:-$(mktemp -d)} || exit 1
[ -n "${KEEP:-}" ] || trap 'rm -rf "$folder"' EXIT
here=$(dirname "$0")
"$here/build.sh" "$folder" || exit
python3 "$here/judge.py" "$folder" "$@"
