#!/bin/sh
# The bits of ref/ against data/ref-bits.txt, over compilers, optimisation levels and machines (SPEC 6).
#
#   tests/bits-matrix.sh TARGET...   native-gcc native-clang, {aarch64,riscv64,s390x}-{gcc,clang}
#   tests/bits-matrix.sh --pin       writes data/ref-bits.txt anew, from gcc -O0 on this machine
#
# Machines other than this one run under qemu-user. ref/ is compiled with nothing but -O and -D: what keeps the
# bits is in its source. Exit: 0 all equal, 1 a difference, 77 a compiler or emulator of a target is missing.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
pinned=$root/data/ref-bits.txt
work=$(mktemp -d "${TMPDIR:-/tmp}/ref-bits.XXXXXX")
trap 'rm -rf "$work"' EXIT
status=0

# build OUT BITS COMPILER FLAGS...
build()
{
    out=$1 bits=$2
    shift 2
    "$@" -DREF_BITS="$bits" "$root"/ref/*.c "$root/tests/bits.c" "$root/tests/sample.c" -lm -o "$out"
}

# check EMULATOR BITS COMPILER FLAGS...: one row of the matrix
check()
{
    emulator=$1 bits=$2
    shift 2
    build "$work/bits" "$bits" "$@"
    $emulator "$work/bits" >"$work/found"
    grep "^$bits " "$pinned" >"$work/wanted"
    if cmp -s "$work/wanted" "$work/found"; then
        echo "$* REF_BITS=$bits: $(wc -l <"$work/found") hashes equal"
    else
        echo "$* REF_BITS=$bits: DIFFERENT (first pinned, then found)"
        diff "$work/wanted" "$work/found" | grep '^[<>]' | head -n 6
        status=1
    fi
}

# rows EMULATOR COMPILER FLAGS...: all widths and levels of one compiler
rows()
{
    emulator=$1
    shift
    for level in -O0 -O1 -O2 -O3; do
        check "$emulator" 64 "$@" $level
        check "$emulator" 32 "$@" $level
    done
    check "$emulator" 113 "$@" -O2
}

# need PROGRAM...
need()
{
    for program in "$@"; do
        command -v "$program" >/dev/null || {
            echo "$program is missing: $target skipped"
            exit 77
        }
    done
}

for target in "$@"; do
    machine=${target%-*}
    case $target in
    --pin)
        for bits in 64 32 113; do
            build "$work/bits" $bits gcc -O0
            "$work/bits"
        done >"$work/all"
        mv "$work/all" "$pinned"
        ;;
    native-gcc | native-clang)
        compiler=${target#native-}
        need "$compiler"
        rows '' "$compiler"
        # With fused multiply-add at hand, a compiler that may contract would.
        if [ "$(uname -m)" = x86_64 ] && grep -qw fma /proc/cpuinfo; then
            check '' 64 "$compiler" -O3 -mfma
            check '' 32 "$compiler" -O3 -mfma
        fi
        ;;
    aarch64-gcc | riscv64-gcc | s390x-gcc)
        need "$machine-linux-gnu-gcc" "qemu-$machine"
        rows "qemu-$machine" "$machine-linux-gnu-gcc" -static
        ;;
    aarch64-clang | riscv64-clang | s390x-clang)
        need clang "$machine-linux-gnu-gcc" "qemu-$machine" # clang takes the C library of the cross gcc
        rows "qemu-$machine" clang --target="$machine-linux-gnu" -static
        ;;
    *)
        echo "target is $target, wanted native-{gcc,clang} or {aarch64,riscv64,s390x}-{gcc,clang}" >&2
        exit 2
        ;;
    esac
done
exit $status
