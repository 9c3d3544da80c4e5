#!/usr/bin/env bash
# An installed lighthouse, used from outside by pkg-config: shared and static, from C and C++, and no symbol exported
# that is not lh_*. install.sh BUILD
set -euo pipefail
build=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
to=$(mktemp -d)
trap 'rm -rf "$to"' EXIT
meson install -C "$build" --no-rebuild --destdir "$to" >/dev/null
pc=$(find "$to" -name lighthouse.pc)
libraries=$(dirname "$(dirname "$pc")")
default=$(pkg-config --variable pc_path pkg-config)
prefix=$to$(PKG_CONFIG_LIBDIR="$(dirname "$pc"):$default" pkg-config --variable prefix lighthouse)
flags()
{
    PKG_CONFIG_LIBDIR="$(dirname "$pc"):$default" pkg-config --define-variable=prefix="$prefix" "$@" lighthouse
}
run() # WHAT PROGRAM
{
    local output
    output=$("$2")
    [ "$output" = "0.2.0: out[0,0,5,0] is 6" ] || { echo "$1 printed '$output'"; exit 1; }
    echo "$1: $output"
}
words=$(flags --static --libs | tr ' ' '\n' | grep -v "^-L$prefix" | sort)
[ -z "$(uniq -d <<<"$words")" ] || { echo "lighthouse.pc has twice: $(uniq -d <<<"$words")"; exit 1; }
grep -q '/' <<<"$words" && { echo "lighthouse.pc names a folder of this machine: $words"; exit 1; }
# What each backend that was built needs, and nothing of one that was not.
for pair in openmp:-fopenmp opencl:-lOpenCL cuda:-lcudart_static; do
    built=$("$prefix/bin/lighthouse" devices 2>/dev/null | grep -c "^${pair%%:*}$" || true)
    there=$(grep -cx -- "${pair#*:}" <<<"$words" || true)
    [ "$there" = "$built" ] || { echo "lighthouse.pc has ${pair#*:} $there times, wanted $built"; exit 1; }
done
[ "$(flags --libs-only-l | xargs)" = -llighthouse ] || { echo "linking the shared library takes $(flags --libs)"; exit 1; }
strict="-Wall -Wextra -Wpedantic -Werror"
# shellcheck disable=SC2046,SC2086 # flags are words
{
    cc -std=c11 $strict "$here/installed.c" -o "$to/shared" $(flags --cflags --libs)
    c++ -x c++ $strict "$here/installed.c" -o "$to/plus" $(flags --cflags --libs)
    cc -std=c11 $strict $(flags --cflags) "$here/installed.c" -o "$to/static" "$libraries/liblighthouse.a" \
        $(flags --static --libs | sed 's/-llighthouse//')
}
export LD_LIBRARY_PATH=$libraries
run shared "$to/shared"
run C++ "$to/plus"
LD_LIBRARY_PATH='' run static "$to/static"
foreign=$(nm -D --defined-only "$libraries/liblighthouse.so" | awk '{ print $3 }' | grep -v '^lh_' || true)
[ -z "$foreign" ] || { echo "exported besides lh_*: $foreign"; exit 1; }
"$prefix/bin/lighthouse" --help >/dev/null
