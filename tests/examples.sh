#!/usr/bin/env bash
# examples.sh ROOT LIBRARY-FOLDER: the numbered examples compile as their first lines say, without a warning, and print what
# docs/algorithm.md and their comments promise. The header compiles as strict C89 and as C++98.
set -euo pipefail
root=$1 library=$2
work=$(mktemp -d "${TMPDIR:-/tmp}/examples.XXXXXX")
trap 'rm -rf "$work"' EXIT
export LD_LIBRARY_PATH=$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
warnings=(-Wall -Wextra -Wpedantic -Wshadow -Werror)
status=0

expect() # PROGRAM [ARGUMENT]... -- PATTERN...
{
    local command=() pattern output
    while [ "$1" != -- ]; do command+=("$1"); shift; done
    shift
    output=$("$work/${command[0]}" "${command[@]:1}" 2>&1) || { echo "${command[*]} ended with $?: $output"; status=1; return; }
    for pattern; do
        grep -qE -- "$pattern" <<<"$output" || { echo "${command[*]}: no line like '$pattern' in"; echo "$output"; status=1; }
    done
}

cc "${warnings[@]}" "$root/examples/01_reference.c" "$root"/ref/[a-z]*.c -lm -o "$work/01"
for name in 02_layer 03_stages 04_check; do
    cc "${warnings[@]}" "-I$root/include" "$root/examples/$name.c" "-L$library" -llighthouse -o "$work/${name%%_*}"
done
expect 01 -- '^index +18 +14 +6 +7 +15 +19 +16 +10 +11 +17 +20$' \
    '^out +0\.0000 +0\.0000 +0\.0000 +2\.0000 +2\.0000 +4\.6667 +6\.7719 +7\.5756 +5\.2756 +6\.4066 +8\.3574 +7\.0471$' \
    '^dq .* -1\.9687 ' '^dv .* 5\.9193 '
expect 02 ref -- '^out\[0,0,1023,0\] is -?[0-9.]+, dk\[0,0,0,0\] is '
expect 03 -- '^0 1 8 9 4 5 10 11$'
expect 04 -- 'scatter-no-shift' 'first wrong: out \(scatter\)'

cc -std=c89 -pedantic-errors -Wall -Wextra -Werror -fsyntax-only -x c "$root/include/lighthouse.h"
if command -v c++ >/dev/null; then
    c++ -std=c++98 -pedantic-errors -Wall -Wextra -Werror -fsyntax-only -x c++ "$root/include/lighthouse.h"
fi
[ "$status" = 0 ] && echo "examples print what they promise; the header is C89 and C++98"
exit $status
