# with.sh: sourced by the drivers' scripts. DRIVER.sh LIGHTHOUSE [VERIFY ARGUMENTS...]: fetches a driver by its package's name into a
# scratch folder, lets the loader find it alone, and judges what was asked for (--case small) on it. 77 where it cannot be
# had. KEEP=FOLDER keeps what was fetched, and the driver's cache, for a second run.
set -u
lighthouse=$1
shift
[ $# -gt 0 ] || set -- --case small
folder=${KEEP:-$(mktemp -d)} || exit 1
[ -n "${KEEP:-}" ] || trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/icd" "$folder/cache"
export OCL_ICD_VENDORS="$folder/icd" XDG_CACHE_HOME="$folder/cache" POCL_CACHE_DIR="$folder/cache"

skip() { echo "SKIP: $*"; exit 77; }
# from_pypi PACKAGE...: into $folder/venv
from_pypi() {
    [ -d "$folder/venv" ] && return
    { python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" -q install "$@"; } ||
        { rm -rf "$folder/venv"; skip "$* cannot be had from PyPI"; }
}
# from_debian PACKAGE...: into $folder/root, installing nothing
from_debian() {
    [ -d "$folder/root" ] && return
    (mkdir "$folder/debs" && cd "$folder/debs" && apt-get -q download "$@") || { rm -rf "$folder/debs"; skip "$* cannot be had"; }
    for deb in "$folder"/debs/*.deb; do dpkg -x "$deb" "$folder/root" || skip "$deb cannot be unpacked"; done
}
# The program where the driver is; judge and version run it.
program() { "$lighthouse" "$@"; }
# from_release SUITE PACKAGE...: another release of Debian in $folder/SUITE with these packages, and `program` in it. Its mounts go with
# the process that made them.
from_release() {
    root=$folder/$1
    [ "$(id -u)" = 0 ] && command -v debootstrap >/dev/null || skip "a root of Debian $1 needs root and debootstrap"
    if [ ! -e "$root/usr/bin/lighthouse" ]; then
        packages=$(shift && echo "$@" | tr ' ' ',')
        debootstrap --variant=minbase --include="$packages" "$1" "$root" >"$folder/debootstrap.log" 2>&1 ||
            { tail -n 3 "$folder/debootstrap.log"; rm -rf "$root"; skip "Debian $1 with $packages cannot be had"; }
        cp -r "$(dirname "$0")/../../data" "$root/usr/share/lighthouse-data"
    fi
    # Of the program's libraries those that the root lacks: what an older glibc linked a newer one runs.
    ldd "$lighthouse" | sed -n 's/.* => \(\/[^ ]*\).*/\1/p' | while read -r library; do
        [ -e "$root$library" ] || cp -L --parents "$library" "$root"
    done
    cp "$lighthouse" "$root/usr/bin/lighthouse"
    mkdir -p "$root/$folder/cache"
    program() {
        LIGHTHOUSE_DATA=/usr/share/lighthouse-data unshare -m sh -c '
            for at in proc sys dev; do mount --rbind /$at "$0/$at" || exit 77; done
            exec chroot "$0" /usr/bin/lighthouse "$@"' "$root" "$@"
    }
}
# driver LIBRARY: what the loader is to load
driver() {
    [ -e "$1" ] || skip "$1 was not in the package"
    echo "$1" >"$folder/icd/driver.icd"
}
# judge BODY ARGUMENTS...
judge() {
    body=$1
    shift
    echo "== body $body"
    LIGHTHOUSE_OPENCL_BODY=$body program verify --backend opencl "$@" || exit 1
}
# same_bits: a layer in the CPU body has the bits that the installed driver gives it (PoCL), on vectors as wide.
same_bits() {
    there=${root:-}$folder
    wide() { sed -n '/^opencl/,/^[a-z]/s/.*features: [a-z]*, \(vectors of [0-9]* floats\).*/\1/p'; }
    installed() { env -u OCL_ICD_VENDORS -u LD_LIBRARY_PATH "$lighthouse" "$@"; }
    if [ "$(installed devices | wide)" != "$(LIGHTHOUSE_OPENCL_BODY=cpu program devices | wide)" ]; then
        echo "== no driver is installed whose vectors are as wide: bits are not compared"
        return
    fi
    mkdir -p "$there" && rm -f "$there/in" "$there/wanted" "$there/got"
    "$lighthouse" vectors --heads 2 --kv-heads 1 --tokens 512 --dim 24 --topk 64 --tile-topk 16 --dtype f32 "$there/in" &&
        installed run --backend opencl --trace "$there/in" "$there/wanted" &&
        LIGHTHOUSE_OPENCL_BODY=cpu program run --backend opencl --trace "$folder/in" "$folder/got" &&
        cmp "$there/wanted" "$there/got" || { echo "FAIL: other bits than the installed driver's"; exit 1; }
    echo "== the bits of the installed driver"
}
# Which driver answered.
version() { program devices | sed -n '/^opencl/,/^[a-z]/p' | grep -E 'driver|features|none'; }
