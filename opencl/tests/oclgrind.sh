#!/bin/sh
# oclgrind.sh SUITE BODY [GROUP LOCAL BUFFER]: every kernel of one body on a small layer under oclgrind, which looks for data races,
# uninitialized values and accesses outside of buffers. Work-groups have at most GROUP work-items and LOCAL bytes of local
# memory, and buffers BUFFER bytes as far as a head can be cut; unless given, 16 because it is slow. Given, accesses and limits
# alone are looked at: it takes what a conversion gives for uninitialized, so halves (CASE=halves) go without.
suite=$1 body=$2 group=${3:-16} local=${4:-32768}
[ $# -gt 4 ] && export LIGHTHOUSE_OPENCL_BUFFER="$5"
[ $# -gt 2 ] && checks= || checks="--data-races --uninitialized"
command -v oclgrind >/dev/null || { echo "SKIP: no oclgrind here"; exit 77; }
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
# Optimised code has instructions that oclgrind does not know; programs in the cache are optimised.
XDG_CACHE_HOME=$folder CK_FORK=no CK_RUN_CASE="${CASE:-small}" LIGHTHOUSE_OPENCL_BODY=$body \
    oclgrind --max-wgsize "$group" --local-mem-size "$local" --build-options -cl-opt-disable $checks \
    --max-errors 20 --log "$folder/log" "$suite" || exit 1
[ -s "$folder/log" ] || exit 0
cat "$folder/log"
exit 1
