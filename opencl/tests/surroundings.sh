#!/bin/sh
# surroundings.sh LIGHTHOUSE FAKE_DRIVER: bad OpenCL surroundings each have their line, and harm no other backend.
lighthouse=$1 fake=$2
folder=$(mktemp -d) || exit 1
trap 'umount "$folder/noexec" 2>/dev/null; rm -rf "$folder"' EXIT
fail() { echo "FAIL: $1: $2"; exit 1; }
# refused NAME PATTERN: verify of opencl is skipped with a line that has the pattern, and ref goes on.
refused() {
    line=$("$lighthouse" verify --backend opencl --case one-token 2>&1)
    case $line in *"$2"*) ;; *) fail "$1" "$line, wanted '$2'" ;; esac
    "$lighthouse" devices >"$folder/devices" || fail "$1" "devices ended with $?"
    grep -qF "$2" "$folder/devices" || fail "$1" "devices does not say '$2'"
    "$lighthouse" verify --backend ref --case one-token --dtype f32 >/dev/null || fail "$1" "ref ended with $?"
}
"$lighthouse" verify --backend opencl --case one-token --dtype f32 >"$folder/out" 2>&1
[ $? -eq 77 ] && { cat "$folder/out"; exit 77; }

# orderly NAME STATUS: a driver that can do without works, one that dies has its line.
orderly() {
    case $2 in 0) ;; 77) grep -q "^SKIP opencl: .*ended the process" "$folder/out" ;; *) false ;; esac || fail "$1" "$(cat "$folder/out")"
}
# That it worked is kept with the limits under which it did: stacks that are too small for a driver end its trial alone.
(ulimit -s 64 && exec "$lighthouse" verify --backend opencl --case one-token --dtype f32) >"$folder/out" 2>&1
orderly "a stack of 64 KiB" $?

mkdir "$folder/none" "$folder/broken" "$folder/two"
export OCL_ICD_VENDORS="$folder/none"
refused "no driver" "opencl finds no platform, wanted a device: install a driver"
export OCL_ICD_VENDORS="$folder/broken"
echo /nonexistent/libdriver.so >"$folder/broken/a.icd"
refused "a driver that cannot be loaded" "names 1 (/nonexistent/libdriver.so), wanted a driver that can be loaded"

# dies NAME PATTERN: it costs opencl alone: no status of a signal, ref is judged, run says it in one line and writes nothing.
"$lighthouse" vectors --tokens 64 --dim 8 --topk 8 "$folder/in" || exit 1
dies() {
    "$lighthouse" verify --backend opencl --backend ref --case one-token --dtype f32 >"$folder/out" 2>&1
    [ $? -eq 77 ] || fail "$1" "verify ended otherwise than with 77: $(cat "$folder/out")"
    grep -q "^SKIP opencl: .*ended the process.*$2" "$folder/out" || fail "$1" "$(cat "$folder/out"), wanted '$2'"
    grep -q "^one-token *ok" "$folder/out" || fail "$1" "ref was not judged: $(cat "$folder/out")"
    "$lighthouse" run --backend opencl "$folder/in" "$folder/result" >"$folder/out" 2>&1
    [ $? -eq 77 ] || fail "$1" "run ended otherwise than with 77: $(cat "$folder/out")"
    [ "$(grep -c . "$folder/out")" = 1 ] && [ ! -e "$folder/result" ] || fail "$1" "run: $(cat "$folder/out")"
    "$lighthouse" devices >"$folder/out" || fail "$1" "devices ended with $?"
}
# A driver that dies, whenever it does; and one that refuses in an orderly way is judged.
mkdir "$folder/fake"
export OCL_ICD_VENDORS="$folder/fake"
echo "$fake" >"$folder/fake/0.icd"
for moment in devices context build exit; do
    export FAKE_DRIVER=$moment
    dies "a driver that dies at $moment" "the end, at $moment"
done
FAKE_DRIVER=refuse "$lighthouse" verify --backend opencl --case one-token --dtype f32 >"$folder/out" 2>&1
[ $? -eq 1 ] && grep -q "a kernel does not build on fake: no compiler" "$folder/out" ||
    fail "a driver that refuses" "$(cat "$folder/out")"

# Beside a driver that works, one that dies costs its own device, and one that cannot be loaded is passed over.
export FAKE_DRIVER=build
cp /etc/OpenCL/vendors/*.icd "$folder/fake" 2>/dev/null || exit 0
working=$("$lighthouse" devices | sed -n '/^opencl/,/^cuda/s/^    \([0-9]*\): .*/\1/p' | sort -n | tail -n 1)
"$lighthouse" devices | grep -q '^    0: fake' || fail "two drivers" "fake is not device 0"
"$lighthouse" verify --backend opencl --device "$working" --case one-token --dtype f32 >"$folder/out" 2>&1 ||
    fail "beside a driver that dies" "$(cat "$folder/out")"
dies "a driver that dies, beside one that works" "the end, at build"
cp /etc/OpenCL/vendors/*.icd "$folder/two" 2>/dev/null || exit 0
cp "$folder/broken/a.icd" "$folder/two/0.icd"
export OCL_ICD_VENDORS="$folder/two"
"$lighthouse" verify --backend opencl --case one-token --dtype f32 >"$folder/out" 2>&1 || fail "one of two drivers" "$(cat "$folder/out")"

# No cache of ours can be made or trusted: programs are built again, that is all. The driver's own is elsewhere.
export POCL_CACHE_DIR="$folder/pocl"
for cache in /proc /dev/null "$folder/out"; do
    XDG_CACHE_HOME=$cache "$lighthouse" verify --backend opencl --case one-token --dtype f32 >"$folder/out2" 2>&1 ||
        fail "cache $cache" "$(cat "$folder/out2")"
done

# No linker, or a cache from which nothing can be run.
export XDG_CACHE_HOME="$folder/cache"
mkdir "$folder/pocl2" "$folder/nothing" "$folder/noexec"
POCL_CACHE_DIR="$folder/pocl2" PATH="$folder/nothing" \
    "$lighthouse" verify --backend opencl --case one-token --dtype f32 >"$folder/out" 2>&1
orderly "no linker" $?
mount -t tmpfs -o noexec none "$folder/noexec" 2>/dev/null || { echo "no tmpfs can be mounted here: noexec is left out"; exit 0; }
POCL_CACHE_DIR="$folder/noexec" "$lighthouse" verify --backend opencl --case one-token --dtype f32 >"$folder/out" 2>&1
orderly "a noexec cache" $?
exit 0
