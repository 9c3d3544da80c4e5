#!/bin/sh
# The page's bits against the native build's: compare.sh chromium|node PLAY_HASHES PAGE.html PLAY.wasm
#
# CASES configurations (1000) are drawn, run forward and backward, and hashed on both sides. In Chromium the page does it
# itself, and its words about the broken rules, its refusal, its address and the time of a redraw are looked at too;
# under node the module alone runs. 77 = SKIP where the page was not built or the engine is not here.
set -eu
engine=$1 native=$2 page=$3 wasm=$4 cases=${CASES:-1000}
skip()
{
    echo "SKIP: $1"
    exit 77
}
[ -f "$page" ] || skip "the page was not built (Debian: clang lld wasi-libc libclang-rt-14-dev-wasm32)"
work=$(mktemp -d "${TMPDIR:-/tmp}/play.XXXXXX")
trap 'rm -rf "$work"' EXIT
"$native" "$cases" >"$work/native"

case $engine in
node)
    node=$(command -v node || command -v nodejs) || skip "no node (Debian: nodejs)"
    cat >"$work/run.cjs" <<'END'
const [file, cases] = process.argv.slice(2);
const never = () => { throw new Error("the reference tried to use a file"); };
const compiled = new WebAssembly.Module(require("fs").readFileSync(file));
const wasi_snapshot_preview1 = {fd_close: never, fd_seek: never, fd_write: never};
const layer = new WebAssembly.Instance(compiled, {wasi_snapshot_preview1}).exports;
for (let seed = 1; seed <= Number(cases); seed++)
  console.log(BigInt.asUintN(64, layer.play_case(seed)).toString(16).padStart(16, "0"));
END
    "$node" "$work/run.cjs" "$wasm" "$cases" >"$work/found"
    ;;
chromium)
    browser=$(command -v chromium-headless-shell || command -v chromium) || skip "no Chromium (Debian: chromium-headless-shell)"
    page=$(cd "$(dirname "$page")" && pwd)/$(basename "$page")
    HOME=$work "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" --dump-dom \
        "file://$page#selftest=$cases" >"$work/dom" 2>"$work/errors" || {
        cat "$work/errors"
        exit 1
    }
    sed -n '/<pre id="selftest"/,/<\/pre>/p' "$work/dom" |
        sed -e 's/.*<pre id="selftest"[^>]*>//' -e 's/<\/pre>.*//' -e 's/&amp;/\&/g' >"$work/said"
    head -n "$cases" "$work/said" >"$work/found"
    tail -n +"$((cases + 1))" "$work/said" >"$work/words"
    cat "$work/words"
    # The least of 60 redraws or more, so that a busy machine does not decide.
    sed -n 's/^redraw at N = 64: least \([0-9]*\)\..*/\1/p' "$work/words" | grep -qxE '[0-9]|1[0-5]' || {
        echo "a redraw took 16 ms or more"
        exit 1
    }
    sed -n 's/^first picture after \([0-9]*\) ms$/\1/p' "$work/words" | grep -qxE '[0-9]{1,3}' || {
        echo "the first picture took a second or more"
        exit 1
    }
    sed 1,2d "$work/words" | diff "$(dirname "$0")/selftest.txt" - || {
        echo "the page says something else than selftest.txt"
        exit 1
    }
    ;;
esac
[ "$(wc -l <"$work/found")" -eq "$cases" ] || {
    echo "$engine gave $(wc -l <"$work/found") hashes, wanted $cases"
    exit 1
}
if ! diff "$work/native" "$work/found" >"$work/diff"; then
    echo "$engine: $(grep -c '^<' "$work/diff") of $cases configurations have other bits than the native build"
    exit 1
fi
echo "$engine: $cases configurations, every tensor, forward and backward: the native build's bits"
