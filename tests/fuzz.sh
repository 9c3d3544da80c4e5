#!/bin/sh
# Runs a libFuzzer target over its committed corpus and on from there: fuzz.sh TARGET SEEDS. What it finds new stays in
# the build folder. FUZZ_SECONDS sets how long (10).
set -eu
scratch=$1.found
mkdir -p "$scratch"
dictionary=
[ ! -f "$2.dict" ] || dictionary=-dict=$2.dict
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # the layers of `config` are small
exec "$1" -max_total_time="${FUZZ_SECONDS:-10}" -max_len=8192 -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 \
    -verbosity=1 -artifact_prefix="$scratch/crash-" ${dictionary:+"$dictionary"} "$scratch" "$2" 2>&1
