#!/bin/sh
# threads.sh LIGHTHOUSE: every tensor has the same bits whatever the number of compute units. PoCL takes it from the environment; on
# another driver there is nothing to vary.
lighthouse=$1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
units() { POCL_MAX_PTHREAD_COUNT=$1 "$lighthouse" devices | sed -n 's/^    0: pthread.* \([0-9]*\) compute unit.*/\1/p'; }
[ "$(units 1)" = 1 ] || { echo "SKIP: no PoCL here"; exit 77; }
"$lighthouse" vectors --heads 2 --kv-heads 1 --tokens 512 --dim 24 --topk 64 --tile-topk 16 --dtype f32 "$folder/in" || exit 1
for threads in 1 3 5; do
    POCL_MAX_PTHREAD_COUNT=$threads "$lighthouse" run --backend opencl --trace "$folder/in" "$folder/$threads" || exit 1
    cmp "$folder/1" "$folder/$threads" || { echo "FAIL: $threads compute units give other bits than 1"; exit 1; }
done
