#!/usr/bin/env bash
# skeleton.sh ROOT: a newcomer's first hour. Copies the tree, makes a port of examples/port-skeleton in a folder of its
# own, with a line in the table and an option; builds; `lighthouse verify --backend` passes. Then breaks one stage: verify
# fails there, and in no stage before it. Lists the places that were touched.
set -euo pipefail
root=$1
command -v git >/dev/null || { echo "SKIP: no git"; exit 77; }
work=$(mktemp -d "${TMPDIR:-/tmp}/skeleton.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
(cd "$root" && git ls-files -zco --exclude-standard 2>/dev/null || find . -type f -not -path './.git/*' -not -path './build*' -print0) |
    (cd "$root" && tar --null --files-from=- --ignore-failed-read -cf - 2>/dev/null) | tar -xf -
git init -q . && git add -A && git -c user.name=t -c user.email=t@t commit -qm tree

cp -r examples/port-skeleton abacus
sed -i 's/SKELETON/abacus/g; s/skeleton/abacus/g' abacus/*
echo 'LH_BACKEND(abacus, abacus, "patience")' >>core/backends.def
echo "option('abacus', type: 'feature', value: 'auto', description: 'the abacus backend')" >>meson_options.txt
git status --short | tee .git/touched
[ "$(wc -l <.git/touched)" = 3 ] || { echo "$(wc -l <.git/touched) places were touched, wanted 3"; exit 1; }

options=(-Dopenmp=disabled -Dopencl=disabled -Dcuda=disabled -Dtrain=disabled)
meson setup build "${options[@]}" >log 2>&1 && ninja -C build lighthouse >>log 2>&1 || { cat log; exit 1; }
build/lighthouse devices | grep -A 1 abacus
build/lighthouse verify --backend abacus --case small | tee right | tail -n 1
grep -q ' 0 failed' right

# A scatter that adds 1 to its first element: it is named, and no other stage is.
sed -i 's|case LH_SCATTER: .*|case LH_SCATTER: {\n        const lh_status status = scalar(plan, stage, trace, error);\n        *(float *)trace[LH_OUT].data += 1;\n        return status;\n    }|' abacus/backend.c
ninja -C build lighthouse >>log 2>&1 || { tail -n 20 log; exit 1; }
status=0
build/lighthouse verify --backend abacus --case small --json wrong.json >wrong || status=$?
tail -n 1 wrong
[ "$status" = 1 ] || { echo "exit status $status with a broken scatter, wanted 1"; exit 1; }
python3 - <<'END'
import json
rows = [row for case in json.load(open("wrong.json"))["cases"] for row in case["tensors"]]
parts = [row["part"] for row in rows if not row["passed"]]
stages = [part for part in parts if not part.startswith("layer")]
print("wrong:", ", ".join(sorted(set(parts))))
assert set(stages) == {"scatter"}, stages
END
