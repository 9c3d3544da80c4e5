#!/usr/bin/env bash
# The whole test suite, step by step: tests/all.sh [STEP]..., called by `./bootstrap test [STEP]...` once build/ stands.
# Ends with a line "N passed, N failed, N skipped"; exit status 1 when anything failed. A step whose tools are not
# here counts as skipped.
set -uo pipefail
cd "$(dirname "$0")/.."
steps=(format gcc bits clang sanitize thread valgrind install)
[ $# -eq 0 ] || steps=("$@")
passed=0 failed=0 skipped=0

count() # PASSED FAILED SKIPPED
{
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
}

# A step of one command: passed, skipped (77) or failed.
once()
{
    local output status=0
    output=$("$@" 2>&1 </dev/null) || status=$?
    [ -z "$output" ] || printf '%s\n' "$output"
    case $status in
    0) count 1 0 0 ;;
    77) count 0 0 1 ;;
    *) count 0 1 0 ;;
    esac
}

# configure FOLDER OPTIONS...: a build of its own, with clang. -Wno-pass-failed where a sanitizer is in the way of
# vectorising.
configure()
{
    local folder=$1
    shift
    command -v clang >/dev/null || { echo "SKIP: no clang"; count 0 0 1; return 1; }
    {
        [ -f "$folder/build.ninja" ] || CC=clang meson setup "$folder" -Dwerror=true -Dcuda=disabled "$@"
    } >"$log" 2>&1 && ninja -C "$folder" >>"$log" 2>&1 && return
    cat "$log"
    count 0 1 0
    return 1
}

# run FOLDER LOGNAME MESON-TEST-ARGUMENTS...
run()
{
    local folder=$1 name=$2 totals
    shift 2
    rm -f "$folder/meson-logs/$name"*
    meson test -C "$folder" --no-rebuild --timeout-multiplier 5 --logbase "$name" "$@" >"$log" 2>&1 </dev/null
    totals=$(/usr/bin/env python3 tests/totals.py "$folder/meson-logs/$name"*.json) || { cat "$log"; totals="0 1 0"; }
    sed '$d' <<<"$totals"
    # shellcheck disable=SC2046 # three numbers
    count $(tail -n 1 <<<"$totals")
}

# Names of the tests of a folder that a pattern fits, one a line.
names()
{
    meson test -C "$1" --no-rebuild --list 2>/dev/null | sed 's/.* \/ //' | grep -E "$2"
}

format()
{
    command -v clang-format >/dev/null || { echo "SKIP: no clang-format"; return 77; }
    find . \( -path './build*' -o -path './.?*' \) -prune -o \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cl' \) -print0 |
        xargs -0 clang-format --dry-run -Werror
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for step in "${steps[@]}"; do
    started=$SECONDS
    echo "== $step"
    case $step in
    format) once format ;;
    gcc) run build gcc --no-suite bits ;;
    bits) run build bits --suite bits ;;
    clang) # suite `once` depends on neither compiler nor sanitizer: the first build has run it
        configure build-clang && run build-clang clang --no-suite bits --no-suite once ;;
    sanitize)
        configure build-sanitize --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false \
            -Dc_args='-fsanitize=fuzzer-no-link -fno-sanitize-recover=all -Wno-pass-failed' &&
            LSAN_OPTIONS=suppressions=$PWD/tests/lsan.supp run build-sanitize sanitize --no-suite bits --no-suite once
        ;;
    thread)
        # Uninstrumented libraries (OpenBLAS, the OpenMP runtime) synchronise in ways that cannot be seen from outside.
        configure build-thread --buildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false -Dopencl=disabled \
            -Dc_args=-Wno-pass-failed && {
            mapfile -t chosen < <(names build-thread openmp)
            export TSAN_OPTIONS=ignore_noninstrumented_modules=1:allocator_may_return_null=1
            [ ${#chosen[@]} -eq 0 ] || run build-thread thread "${chosen[@]}"
        }
        ;;
    valgrind)
        if command -v valgrind >/dev/null; then
            mapfile -t chosen < <(names build '^(config|safetensors|train_(text|world)|(memory|plan) (ref|openmp))$')
            run build valgrind "${chosen[@]}" --wrap \
                'valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite'
        else
            echo "SKIP: no valgrind" && count 0 0 1
        fi
        ;;
    install) once tests/install.sh build ;;
    *)
        echo "all.sh: $step is no step, wanted one of: format gcc bits clang sanitize thread valgrind install" >&2
        exit 2
        ;;
    esac
    echo "   $step took $((SECONDS - started)) s"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
