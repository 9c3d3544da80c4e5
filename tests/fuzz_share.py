"""Fuzzes every reader over many cores: fuzz_share.py SECONDS JOBS CORPUS OUT CHECKED [FAST].

CHECKED is a folder of fuzz_* built with AddressSanitizer, FAST one of the same without it, whose undefined behaviour
traps: where both are given, FAST takes most of the time, and everything it kept is run once more by CHECKED at the end.
Whichever reader has the fewest executions gets the next free core. FUZZ_ROUND (1) chooses the seeds. OUT gets what
crashed, and the corpora, minimised. The table says how many executions a second of a core gave, which is what to look
at when they are too few: one slow reader takes everybody's cores.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

CHUNK = 30  # seconds of one process
FIRST = 4  # of a reader's first, which measures
CHECKED_SHARE = 0.08  # of the time, at first
MERGE_SHARE = 0.08  # at the end
LONG = 4096  # bytes of an input at most
SHORT = 512  # in every other turn: many of them for the price of one

seconds, jobs = float(sys.argv[1]), int(sys.argv[2])
corpus, out, checked = (pathlib.Path(a).resolve() for a in sys.argv[3:6])
fast = pathlib.Path(sys.argv[6]).resolve() if len(sys.argv) > 6 else None
rounds = int(os.environ.get("FUZZ_ROUND", "1"))  # other seeds
start = time.monotonic()
readers = sorted(p.name.removeprefix("fuzz_") for p in checked.glob("fuzz_*") if p.suffix == "" and p.is_file())
done = {r: 0 for r in readers}
done_checked = {r: 0 for r in readers}
coming = {r: 0.0 for r in readers}  # executions of the processes that run now, as last seen
rate = {}  # executions a second of one process, by reader and build
cores = {r: 0.0 for r in readers}  # seconds of a core
findings = []
lock = threading.Lock()


def command(folder, reader, *more):
    dictionary = corpus / f"{reader}.dict"
    words = [str(folder / f"fuzz_{reader}"), "-timeout=20", "-rss_limit_mb=2048", "-verbosity=0",
             "-print_final_stats=1", f"-artifact_prefix={out}/crash-{reader}-"]
    return words + ([f"-dict={dictionary}"] if dictionary.exists() else []) + [str(m) for m in more]


def execute(words, limit):
    """Exit status (-9 where time ran out), output, seconds of a core."""
    with tempfile.TemporaryFile() as output:
        # One thread each: these fill the machine already.
        ran = subprocess.Popen(words, stdout=output, stderr=output, env=os.environ | {"OMP_NUM_THREADS": "1"})
        late = threading.Timer(limit, ran.kill)
        late.start()
        _, status, used = os.wait4(ran.pid, 0)
        late.cancel()
        output.seek(0)
        text = output.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(status), text, used.ru_utime + used.ru_stime


def chunk(folder, reader, length, seed, longest):
    found = out / "found" / reader
    with lock:
        wanted = rate.get((reader, folder), 1000.0) * length
        coming[reader] += wanted
    code, text, used = execute(command(folder, reader, f"-max_total_time={int(length)}", f"-seed={seed}",
                                       f"-max_len={longest}", found, corpus / reader), length + 120)
    counted = re.search(r"number_of_executed_units: *(\d+)", text)
    with lock:
        coming[reader] -= wanted
        cores[reader] += used
        if counted:
            done[reader] += int(counted[1])
            done_checked[reader] += int(counted[1]) if folder == checked else 0
            rate[reader, folder] = int(counted[1]) / length
        if code != 0:
            findings.append((reader, folder.name, code))
            (out / f"finding-{reader}-{len(findings)}.txt").write_text(text[-20000:])


def worker(number):
    turn = 0
    while True:
        now = time.monotonic() - start
        left = seconds * (1 - MERGE_SHARE) - now
        if left < 3:
            return
        if fast is None or now < seconds * CHECKED_SHARE:
            folder, left = checked, left if fast is None else seconds * CHECKED_SHARE - now
        else:
            folder = fast
        with lock:
            reader = min(readers, key=lambda r: done[r] + coming[r])
            length = min(max(left, 1), CHUNK if (reader, folder) in rate else FIRST)
        turn += 1
        chunk(folder, reader, length, 1 + number + 1000 * turn + 10**6 * rounds, LONG if turn % 2 else SHORT)


def minimise(reader):
    left = start + seconds - time.monotonic()
    kept = out / "corpus" / reader
    kept.mkdir(parents=True, exist_ok=True)
    code, text, _ = execute(command(checked, reader, "-merge=1", f"-max_len={LONG}", kept, corpus / reader,
                                    out / "found" / reader), max(left, 5))
    if code == 0:
        shutil.rmtree(out / "found" / reader)
    else:  # what was found stays as it is
        print(f"the corpus of {reader} could not be minimised: {text[-300:]}")


def together(tasks):
    threads = [threading.Thread(target=t, args=a) for t, a in tasks]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


out.mkdir(parents=True, exist_ok=True)
for r in readers:
    (out / "found" / r).mkdir(parents=True, exist_ok=True)
together([(worker, (n,)) for n in range(jobs)])
fuzzed = time.monotonic() - start
together([(minimise, (r,)) for r in readers])
crashes = sorted(p.name for p in out.iterdir() if p.name.startswith("crash-"))
findings += [("input", name, "kept") for name in crashes]
print(f"{'reader':12} {'executions':>12} {'with ASan':>12} {'per core s':>11} {'corpus':>7}")
for r in readers:
    print(f"{r:12} {done[r]:12,} {done_checked[r]:12,} {done[r] / max(cores[r], 0.1):11,.0f} {len(list((out / 'corpus' / r).iterdir())):7}")
print(f"{sum(done.values()):,} executions in {fuzzed:.0f} s by {jobs} processes; {len(findings)} findings")
for finding in findings:
    print("finding:", *finding)
sys.exit(1 if findings else 0)
