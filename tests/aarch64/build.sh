#!/bin/sh
# build.sh FOLDER: fetches what the program and its tests link on AArch64 (Debian's arm64 packages, unpacked in FOLDER/root, nothing installed) and
# cross-builds them in FOLDER/build. 77 where the compiler or the packages cannot be had.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
skip() { echo "SKIP: $*"; exit 77; }
for tool in aarch64-linux-gnu-gcc qemu-aarch64 meson ninja pkg-config apt-get dpkg; do
    command -v $tool >/dev/null || skip "there is no $tool (Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)"
done
mkdir -p "$1"
folder=$(cd "$1" && pwd)
root=$folder/root libraries=usr/lib/aarch64-linux-gnu

# An apt of its own, to which the machine is an arm64 with nothing installed.
fetch()
{
    mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial"
    : >"$folder/apt/status"
    apt="apt-get -q -y -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Install-Recommends=false -o Debug::NoLocking=1
        -o APT::Sandbox::User= -o Dir::State::status=$folder/apt/status -o Dir::State::lists=$folder/apt/lists -o Dir::Cache=$folder/apt"
    $apt update && $apt --download-only install libjansson-dev nettle-dev check libinih-dev libopenblas-pthread-dev libgomp1
}
if [ ! -d "$root" ]; then
    fetch >"$folder/apt.log" 2>&1 && ls "$folder"/apt/archives/*.deb >/dev/null || { tail -n 3 "$folder/apt.log"; skip "arm64 packages cannot be had"; }
    for deb in "$folder"/apt/archives/*.deb; do dpkg -x "$deb" "$root.partly"; done
    ln -s openblas-pthread/libopenblas.so.0 "$root.partly/$libraries/libopenblas.so.0" # as update-alternatives would
    mv "$root.partly" "$root"
fi
printf '[constants]\nroot = '"'%s'"'\n' "$root" >"$folder/root.ini"
if [ ! -f "$folder/build/build.ninja" ]; then
    meson setup "$folder/build" "$here/../.." --cross-file "$folder/root.ini" --cross-file "$here/cross.ini" -Dwerror=true -Dcuda=disabled \
        -Dopencl=disabled -Dmpi=disabled -Dopenmp=enabled -Dtrain=enabled >"$folder/setup.log" 2>&1 || { tail -n 20 "$folder/setup.log"; exit 1; }
fi
ninja -C "$folder/build" >"$folder/ninja.log" 2>&1 || { tail -n 30 "$folder/ninja.log"; exit 1; }
meson introspect --tests "$folder/build" >"$folder/tests.json"
