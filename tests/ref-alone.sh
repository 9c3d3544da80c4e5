#!/bin/sh
# ref/ leans on nothing, and refuses builds that would change its bits.
#
# Every file compiles alone, in every width, without an include path. Builds with fast-math, finite-math-only, x87
# arithmetic or a width that is not offered are errors. Exit: 0 as it should be, 1 not, 77 no compiler.
#
#   tests/ref-alone.sh COMPILER
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
compiler=$1
work=$(mktemp -d "${TMPDIR:-/tmp}/ref-alone.XXXXXX")
trap 'rm -rf "$work"' EXIT
command -v "$compiler" >/dev/null || {
    echo "$compiler is missing: skipped"
    exit 77
}
status=0

fail()
{
    echo "$compiler: $*"
    status=1
}

for file in "$root"/ref/*.c; do
    cp "$root"/ref/*.h "$file" "$work"
    for bits in 64 32 113; do
        what="$(basename "$file") with REF_BITS=$bits"
        (cd "$work" && "$compiler" -DREF_BITS=$bits -Wall -Wextra -Werror -c "$(basename "$file")" -o one.o) || {
            fail "$what does not compile alone"
            continue
        }
        # All it may need from outside: other parts of ref/, sqrt, and the compiler's own support.
        outside=$(nm -u "$work/one.o" | awk '{ print $2 }' |
            grep -vE '^(ref|sqrt|mem(cpy|set|move)$|__|_GLOBAL_OFFSET_TABLE_)' || true)
        [ -z "$outside" ] || fail "$what leans on" $outside
    done
    rm "$work/$(basename "$file")"
done

refuse()
{
    if "$compiler" "$@" -c "$root/ref/exp.c" -o "$work/refused.o" 2>"$work/errors"; then
        fail "$* is accepted, wanted an error"
    elif ! grep -qE 'error: (#error )?"?(ref/|REF_BITS)' "$work/errors"; then
        fail "$* fails for another reason: $(head -n 1 "$work/errors")"
    fi
}
refuse -O2 -ffast-math
refuse -Ofast
refuse -O2 -ffinite-math-only
refuse -O2 -DREF_BITS=80
if [ "$(uname -m)" = x86_64 ] && [ "$compiler" = gcc ]; then
    refuse -O2 -mfpmath=387
    refuse -O2 -funsafe-math-optimizations
fi
exit $status
