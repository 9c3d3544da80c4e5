#!/bin/sh
# surroundings.sh LIGHTHOUSE: bad OpenCL surroundings each have their line, and harm no other backend.
lighthouse=$1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
fail() { echo "FAIL: $1: $2"; exit 1; }
# refused NAME PATTERN: verify of opencl is skipped with a line that has the pattern, and ref goes on.
refused() {
    line=$("$lighthouse" verify --backend opencl --case one-token 2>&1)
    case $line in *"$2"*) ;; *) fail "$1" "$line, wanted '$2'" ;; esac
    "$lighthouse" devices >"$folder/devices" || fail "$1" "devices ended with $?"
    grep -qF "$2" "$folder/devices" || fail "$1" "devices does not say '$2'"
    "$lighthouse" verify --backend ref --case one-token >/dev/null || fail "$1" "ref ended with $?"
}
"$lighthouse" verify --backend opencl --case one-token >"$folder/out" 2>&1
[ $? -eq 77 ] && { cat "$folder/out"; exit 77; }

mkdir "$folder/none" "$folder/broken" "$folder/two"
export OCL_ICD_VENDORS="$folder/none"
refused "no driver" "opencl finds no platform, wanted a device: install a driver"
export OCL_ICD_VENDORS="$folder/broken"
echo /nonexistent/libdriver.so >"$folder/broken/a.icd"
refused "a driver that cannot be loaded" "names 1 (/nonexistent/libdriver.so), wanted a driver that can be loaded"

# Beside a driver that works, one that cannot be loaded is passed over.
cp /etc/OpenCL/vendors/*.icd "$folder/two" 2>/dev/null || exit 0
cp "$folder/broken/a.icd" "$folder/two/0.icd"
export OCL_ICD_VENDORS="$folder/two"
"$lighthouse" verify --backend opencl --case one-token >"$folder/out" 2>&1 || fail "one of two drivers" "$(cat "$folder/out")"

# No cache of ours can be made or trusted: programs are built again, that is all. The driver's own is elsewhere.
export POCL_CACHE_DIR="$folder/pocl"
for cache in /proc /dev/null "$folder/out"; do
    XDG_CACHE_HOME=$cache "$lighthouse" verify --backend opencl --case one-token >"$folder/out2" 2>&1 ||
        fail "cache $cache" "$(cat "$folder/out2")"
done
exit 0
