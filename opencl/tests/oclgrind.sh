#!/bin/sh
# oclgrind.sh SUITE BODY: every kernel of one body on a small layer under oclgrind, which looks for data races,
# uninitialized values and accesses outside of buffers. Work-groups are kept small because it is slow.
suite=$1 body=$2
command -v oclgrind >/dev/null || { echo "SKIP: no oclgrind here"; exit 77; }
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
# Optimised code has instructions that oclgrind does not know; programs in the cache are optimised.
XDG_CACHE_HOME=$folder CK_FORK=no CK_RUN_CASE=small LIGHTHOUSE_OPENCL_BODY=$body \
    oclgrind --max-wgsize 16 --build-options -cl-opt-disable --data-races --uninitialized \
    --max-errors 20 --log "$folder/log" "$suite" || exit 1
[ -s "$folder/log" ] || exit 0
cat "$folder/log"
exit 1
