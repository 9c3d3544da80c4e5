#!/bin/sh
# The wheel on a Debian that has Python and nothing else, no compiler above all: wheel-bare.sh WHEEL FOLDER, as root, with
# debootstrap. Installs it in FOLDER/root, runs its whole `verify`, the program on the PATH, and trace and check.
set -eu
wheel=$(realpath "$1")
mkdir -p "$2"
root=$(realpath "$2")/root
[ -e "$root/usr/bin/python3" ] || debootstrap --variant=minbase --include=python3,python3-venv bookworm "$root" >&2
mkdir -p "$root/wheels"
rm -f "$root"/wheels/lighthouse_attention-*
cp "$wheel" "$root/wheels/"
version=$(chroot "$root" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
python3 -m pip download -q --no-deps --only-binary=:all: --python-version "$version" -d "$root/wheels" 'numpy>=1.20'
cat > "$root/try.sh" << 'END'
set -eu
mount -t proc proc /proc
for tool in cc gcc g++ clang ld make cmake ninja nvcc; do
    if command -v $tool; then echo "there is a $tool, wanted none"; exit 1; fi
done
rm -rf /venv
python3 -m venv /venv
/venv/bin/pip install -q --no-index --find-links /wheels lighthouse-attention
PATH=/venv/bin:$PATH
cd /
lighthouse devices
python -m lighthouse verify
python - << 'PYTHON'
import lighthouse, numpy as np
q, k, v = np.random.default_rng(0).standard_normal((3, 1, 2, 96, 16)).astype(np.float32)
shape = dict(levels=3, pool=2, topk=16, tile_topk=8)
dump = {name: a.astype(np.float32) if a.dtype == np.float64 else a for name, a in lighthouse.trace(q, k, v, **shape).items()}
lighthouse.assert_right(dump, **shape)
print("trace and check: right")
PYTHON
END
unshare --mount --fork chroot "$root" /bin/sh /try.sh
