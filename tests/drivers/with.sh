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
    LIGHTHOUSE_OPENCL_BODY=$body "$lighthouse" verify --backend opencl "$@" || exit 1
}
# Which driver answered.
version() { "$lighthouse" devices | sed -n '/^opencl/,/^[a-z]/p' | grep -E 'driver|features|none'; }
