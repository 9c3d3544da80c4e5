#!/usr/bin/env bash
# A layer over MPI processes: tests/mpi.sh LIGHTHOUSE RANKS|device|bits|bench|refused|killed|train. 77 where there is no mpirun.
#   RANKS     lighthouse verify under mpirun -n RANKS, on a case that they divide
#   device    lighthouse verify of opencl, which works on a device, a process a rank
#   bits      lighthouse run over 1, 2, 4 processes, and over threads, writes the file of one machine; over 2 also where
#             queries travel a window at a time
#   bench     lighthouse bench over processes and over threads sends what bench/ranks_model.py says
#   refused   bad input is one line and status 2, and no file
#   train     over sequences, and over tokens with one of two killed and gone on with by one process, the checkpoint of one
#             process; what cannot be is refused
#   killed    kill -9 of one of four: the others end within 30 s, mpirun with a status and a line
set -uo pipefail
lighthouse=$(realpath "$1") what=$2 model=$(realpath "$(dirname "$0")/../bench/ranks_model.py")
command -v mpirun >/dev/null || { echo "SKIP: no mpirun (Debian: openmpi-bin)"; exit 77; }
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMP_NUM_THREADS=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none # what it would try first is forbidden in containers
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1

fail()
{
    echo "mpi.sh: $*" >&2
    cat err >&2
    exit 1
}

over() # PROCESSES ARGUMENTS...; the program's own lines of stderr go to `said`
{
    mpirun -n "$1" "$lighthouse" "${@:2}" >out 2>err </dev/null
    local status=$?
    grep '^lighthouse' err >said
    return $status
}

input() # FILE: eight tiles; windows of 4 tokens cross every edge
{
    "$lighthouse" vectors --batch 2 --heads 4 --kv-heads 2 --tokens 384 --dim 8 --levels 3 --pool 2 --topk 32 \
        --tile-topk 4 --dtype f32 "$1" 2>err || fail "no input"
}

long_input() # FILE: q k v dout of 49,152 tokens, [1,2,49152,16] F32, of magnitude 1/8 to 2; no vector, which the reference would make
{
    python3 - "$1" <<'EOF'
import json, random, struct, sys

random.seed(1)
size, names = 2 * 49152 * 16 * 4, ("q", "k", "v", "dout")
head = {n: {"dtype": "F32", "shape": [1, 2, 49152, 16], "data_offsets": [i * size, (i + 1) * size]} for i, n in enumerate(names)}
text = json.dumps(head).encode()
text += b" " * (-len(text) % 8)
with open(sys.argv[1], "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    for _ in names:
        data = bytearray(random.randbytes(size))
        data[3::4] = bytes(data[3::4]).translate(bytes((0x3E, 0x3F, 0xBE, 0xBF)[i % 4] for i in range(256)))
        file.write(data)
EOF
}

bits()
{
    local backend ranks
    input in
    for backend in ref openmp; do
        "$lighthouse" run --backend $backend in one 2>err || { [ $backend != ref ] && continue || fail "one machine"; }
        for ranks in 1 2 4; do
            over $ranks run --backend $backend --ranks $ranks in many || fail "$ranks processes: status $?"
            cmp one many || fail "$backend: $ranks processes write another file than one machine"
            [ $ranks -eq 1 ] || LIGHTHOUSE_OVERLAP=1 over $ranks run --backend $backend in ahead || fail "ahead: status $?"
            [ $ranks -eq 1 ] || cmp one ahead || fail "$backend: $ranks processes that overlap write another file"
            "$lighthouse" run --backend $backend --ranks $ranks in threads 2>err || fail "$ranks threads: status $?"
            cmp one threads || fail "$backend: $ranks threads write another file than one machine"
        done
    done
    long_input long || fail "no long input"
    local flags="--levels 3 --pool 4 --topk 768 --tile-topk 64"
    # shellcheck disable=SC2086 # words
    "$lighthouse" run --backend openmp $flags long one 2>err || return 0 # a program without it
    # shellcheck disable=SC2086 # words
    over 2 run --backend openmp --verbose $flags long many || fail "2 processes, windows: status $?"
    grep -q 'plan [0-4]\.[0-9] MiB' err || fail "2 processes, windows: the plan is not that of windows"
    cmp one many || fail "2 processes write another file than one machine where queries travel in windows"
}

bench()
{
    local layer="--backend openmp --tokens 4096 --heads 8 --dim 16 --topk 64 --tile-topk 8 --seconds 0.01 --threads 1"
    # shellcheck disable=SC2086 # words
    {
        over 2 bench $layer || fail "bench: status $?"
        cp out heads
        "$lighthouse" bench $layer --ranks 4 --layout rows >rows 2>err || fail "bench over threads: status $?"
    }
    python3 "$model" --check heads rows >checked 2>err || { cat checked; fail "bench and the model of scale disagree"; }
    [ "$(grep -c '^| 4,096' checked)" -eq 2 ] || fail "the model of scale saw no measured points"
    over 2 bench --json many --backend openmp --tokens 1024 && fail "bench takes --json over ranks"
    [ "$(wc -l <said)" -eq 1 ] && grep -q -- '--json is given with --ranks' said || fail "--json: $(cat said)"
}

device()
{
    "$lighthouse" devices 2>/dev/null | grep -A1 '^opencl' | grep -q '^ *0:' || { echo "SKIP: no OpenCL device"; exit 77; }
    over 2 verify --backend opencl --case many-tiles --dtype f32
    local status=$?
    [ $status -ne 77 ] || { cat out; exit 77; }
    [ $status -eq 0 ] || fail "verify of opencl over 2 processes: status $status"
    grep -q ' 16 tensors compared, 0 failed' out || fail "nothing was judged"
}

refused()
{
    input in
    local words status
    for words in "3 run in many|ranks is 3, wanted a divisor of the 8 tiles" \
        "2 run --ranks 4 in many|--ranks is 4, wanted 2, the processes that mpirun started" \
        "2 run missing many|missing" "2 run --trace in many|--trace is given under mpirun"; do
        # shellcheck disable=SC2086 # words
        over ${words%%|*}
        status=$?
        [ $status -eq 2 ] || fail "$words: status $status"
        [ "$(wc -l <said)" -eq 1 ] && grep -q -- "${words#*|}" said || fail "$words: wanted one line, got: $(cat said)"
        [ ! -e many ] || fail "$words: left a file"
    done
}

killed()
{
    local launcher victim=() ended=0
    mpirun -n 4 "$lighthouse" verify --case medium >out 2>err </dev/null &
    launcher=$!
    for _ in $(seq 100); do
        mapfile -t victim < <(pgrep -P $launcher)
        [ ${#victim[@]} -eq 4 ] && break
        sleep 0.1
    done
    [ ${#victim[@]} -eq 4 ] || fail "mpirun started ${#victim[@]} of 4 processes"
    sleep 1
    kill -9 "${victim[2]}" || fail "the processes were done before one could be killed"
    for _ in $(seq 300); do
        kill -0 $launcher 2>/dev/null || { ended=1; break; }
        sleep 0.1
    done
    [ $ended -eq 1 ] || { kill -9 $launcher "${victim[@]}"; fail "mpirun goes on 30 s after a process was killed"; }
    wait $launcher && fail "mpirun ends with status 0 though a process was killed"
    grep -q 'signal 9' err || fail "nothing is said of the process that was killed"
    for process in "${victim[@]}"; do
        for _ in $(seq 100); do # one that ended and was not waited for (Z) is gone as well
            grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$process/status" || continue 2
            sleep 0.1
        done
        fail "process $process is still there"
    done
}

held_out() # RUN: its lines of held-out loss, but for their seconds
{
    grep '"kind":"held-out"' "$1"/*.jsonl | sed 's/,"seconds".*//' | grep loss
}

train()
{
    local words status launcher victim=()
    local model="--width 16 --layers 2 --heads 2 --kv-heads 1 --dim 8 --hidden 24 --context 2048 --dense-layers 0"
    local run="$model --levels 2 --pool 2 --topk 128 --tile-topk 32 --batch 2 --shards 2 --lighthouse-steps 5 --dense-steps 1
        --held-out-windows 3 --eval-every 2 --retrieval-trials 0 --checkpoint-every 1 --quiet --text text"
    "$lighthouse" train --help >/dev/null 2>&1 || { echo "SKIP: this program has no train"; exit 77; }
    seq 20000 >text
    # shellcheck disable=SC2086 # words
    {
        "$lighthouse" train $run one >out 2>err || fail "one process: status $?"
        over 2 train $run --over sequences sequences || fail "over sequences: status $?"
        cmp one/checkpoint.safetensors sequences/checkpoint.safetensors || fail "two processes over sequences train otherwise"
        held_out one >one.held && held_out sequences >two.held || fail "no held-out loss was logged"
        cmp one.held two.held || fail "two processes measure another held-out loss"
        mpirun -n 2 "$lighthouse" train $run --over tokens tokens >out 2>err </dev/null &
        launcher=$!
        for _ in $(seq 3000); do
            [ -e tokens/checkpoint.safetensors ] && break
            sleep 0.02
        done
        mapfile -t victim < <(pgrep -P $launcher)
        kill -9 "${victim[1]}" || fail "the run was done before a process could be killed"
        wait $launcher && fail "mpirun ends with status 0 though a process was killed"
        grep -q 'signal 9' err || fail "nothing is said of the process that was killed"
        cmp -s one/checkpoint.safetensors tokens/checkpoint.safetensors && fail "the run was done before it was killed"
        "$lighthouse" train --resume --quiet tokens >out 2>err || fail "one process does not go on: status $?"
        cmp one/checkpoint.safetensors tokens/checkpoint.safetensors || fail "two processes over tokens train otherwise"
        mpirun -n 2 "$lighthouse" train $run --lighthouse-steps 2000 --over sequences stopped >out 2>err </dev/null &
        launcher=$!
        for _ in $(seq 3000); do
            [ -e stopped/checkpoint.safetensors ] && break
            sleep 0.02
        done
        mapfile -t victim < <(pgrep -P $launcher)
        kill -TERM "${victim[@]}" || fail "the run was done before it could be stopped"
        wait $launcher && fail "mpirun ends with status 0 though the run was stopped"
        [ "$(grep -c '^Stopping after this step' err)" -eq 1 ] || fail "a stop is said $(grep -c '^Stopping' err) times, wanted once"
        for words in "2 --over tokens --topk 32|ranks is 2, wanted a divisor of the 1 tiles" \
            "3 --over sequences|batch / micro-batch is 2, wanted a multiple of the 3 ranks" \
            "2 --shards 3|shards is 3, wanted runs of a multiple of 1024" "2 --compare|--compare is given under mpirun"; do
            over "${words%% *}" train $run $(cut -d'|' -f1 <<<"${words#* }") never
            status=$?
            [ $status -eq 2 ] || fail "$words: status $status"
            [ "$(wc -l <said)" -eq 1 ] && grep -q -- "${words#*|}" said || fail "$words: $(cat said)"
            [ ! -e never/checkpoint.safetensors ] || fail "$words: left a checkpoint"
        done
        "$lighthouse" train $run --over tokens never >out 2>err && fail "--over is taken without mpirun"
        grep -q -- '--over is given for one process' err || fail "--over: no line"
    }
}

: >err
case $what in
bits | bench | refused | killed | train | device) $what ;;
*)
    case=many-tiles backends=(--backend ref)
    [ "$what" -ne 3 ] || case=small-more
    "$lighthouse" devices 2>/dev/null | grep -q '^openmp' && backends+=(--backend openmp)
    over "$what" verify --ranks "$what" --case $case "${backends[@]}" || fail "verify over $what processes: status $?"
    grep -q ' 0 failed' out || fail "nothing was judged"
    ;;
esac
