#!/bin/sh
# faults.sh BUILD: plants faults in the CUDA kernels, one at a time, and wants `lighthouse verify` to find each. For a machine
# with a device; a fault that verify passes, or a plant that changes nothing, makes the exit status 1.
#   faults.sh --list    name, file, sed expression, arguments of verify; separated by tabs
set -u
list() {
    tab=$(printf '\t')
    grep -v '^#' <<EOF | sed "s/ | /$tab/g"
# Hopper's forward: scores read before their product is done, values of the other stage, the diagonal masked too
forward-wait | attend_sm90.cu | s/lh::products_wait<1>();// | --large=16384
forward-stage | attend_sm90.cu | s/m.v + old \* tile_bytes(D)/m.v + stage * tile_bytes(D)/ | --large=16384
forward-edge | attend_sm90.cu | s/i % 2 > first + i/i % 2 >= first + i/ | --case d128 --dtype bf16
# Hopper's backward: dq added out of turn, and before it is written; lse of the other stage
backward-turn | attend_sm90_backward.cu | s/!= turn)/!= turn \&\& turn > 1000000)/ | --large=16384
backward-barrier | attend_sm90_backward.cu | s/lh::barrier_wait(m.sums_here + 8 \* sender, .*;// | --large=16384
backward-stage | attend_sm90_backward.cu | s/m.lse + stage \* z::LSE;/m.lse + (stage ^ 1) * z::LSE;/ | --large=16384
# The stages around: a row left out, a place left out, a window a row short
pool-edge | pool_windows.cu | s/AT + 3 \* CHILD/AT + 2 * CHILD/ | --large=16384
pull-edge | unpool.cu | s/w.divided = true;/w.divided = true; w.shift = 1;/ | --large=16384
gather-edge | gather.cu | s/j0 + j < window)/j0 + j + 1 < window)/ | --large=16384
EOF
}
if [ "${1:-}" = --list ]; then
    list
    exit 0
fi
build=${1:?wanted the build folder}
cd "$(dirname "$0")/../.." || exit 2
failed=0
plant() {
    name=$1 file=cuda/$2 expression=$3
    shift 3
    cp -p "$file" "$build/planted.keep" || exit 2
    trap 'cp -p "$build/planted.keep" "$file"' EXIT INT TERM
    sed -i "$expression" "$file"
    if cmp -s "$file" "$build/planted.keep"; then
        echo "$name: the plant changes nothing"
        failed=1
    elif ! ninja -C "$build" lighthouse >"$build/planted.log" 2>&1; then
        echo "$name: does not build, see $build/planted.log"
        failed=1
    else
        timeout 120 "$build/lighthouse" verify --backend cuda "$@" >"$build/planted.log" 2>&1
        status=$?
        case $status in
        0) echo "$name: verify passes it" && failed=1 ;;
        1 | 124) echo "$name: found (exit status $status)" ;;
        77) echo "no device" && exit 77 ;;
        *) echo "$name: exit status $status" && failed=1 ;;
        esac
    fi
    cp -p "$build/planted.keep" "$file"
    touch "$file"
    trap - EXIT INT TERM
}
list >"$build/planted.list"
while IFS="$(printf '\t')" read -r name file expression arguments; do
    # shellcheck disable=SC2086
    plant "$name" "$file" "$expression" $arguments </dev/null
done <"$build/planted.list"
exit $failed
