"""Fuzzes every reader over many cores: fuzz_share.py SECONDS JOBS CORPUS OUT CHECKED [FAST].

CHECKED is a folder of fuzz_* built with AddressSanitizer, FAST one of the same without it, whose undefined behaviour
traps: where both are given, FAST takes most of the time, and everything it kept is run once more by CHECKED at the end.
Whichever reader has the fewest executions gets the next free core. FUZZ_ROUND (1) chooses the seeds. OUT gets what crashed, and the corpora, minimised.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time

CHUNK = 30  # seconds of one process
CHECKED_SHARE = 0.12  # of the time, at first
MERGE_SHARE = 0.1  # at the end

seconds, jobs = float(sys.argv[1]), int(sys.argv[2])
corpus, out, checked = (pathlib.Path(a).resolve() for a in sys.argv[3:6])
fast = pathlib.Path(sys.argv[6]).resolve() if len(sys.argv) > 6 else None
rounds = int(os.environ.get("FUZZ_ROUND", "1"))  # other seeds
start = time.monotonic()
readers = sorted(p.name.removeprefix("fuzz_") for p in checked.glob("fuzz_*") if p.suffix == "" and p.is_file())
done = {r: 0 for r in readers}
done_checked = {r: 0 for r in readers}
coming = {r: 0.0 for r in readers}  # executions of the processes that run now, as last seen
rate = {r: 1000.0 for r in readers}  # executions a second of one process
findings = []
lock = threading.Lock()


def command(folder, reader, *more):
    dictionary = corpus / f"{reader}.dict"
    words = [str(folder / f"fuzz_{reader}"), "-max_len=4096", "-timeout=20", "-rss_limit_mb=2048", "-verbosity=0",
             "-print_final_stats=1", f"-artifact_prefix={out}/crash-{reader}-"]
    return words + ([f"-dict={dictionary}"] if dictionary.exists() else []) + [str(m) for m in more]


def execute(words, limit):
    try:
        ran = subprocess.run(words, capture_output=True, timeout=limit, text=True, errors="replace")
        return ran.returncode, ran.stdout + ran.stderr
    except subprocess.TimeoutExpired as late:
        text = late.stderr or b""
        return -9, text.decode(errors="replace") if isinstance(text, bytes) else text


def chunk(folder, reader, length, seed):
    found, wanted = out / "found" / reader, rate[reader] * length
    with lock:
        coming[reader] += wanted
    code, text = execute(command(folder, reader, f"-max_total_time={int(length)}", f"-seed={seed}", found,
                                 corpus / reader), length + 120)
    counted = re.search(r"number_of_executed_units: *(\d+)", text)
    with lock:
        coming[reader] -= wanted
        if counted:
            done[reader] += int(counted[1])
            done_checked[reader] += int(counted[1]) if folder == checked else 0
            rate[reader] = int(counted[1]) / length
        if code != 0:
            findings.append((reader, folder.name, code))
            (out / f"finding-{reader}-{len(findings)}.txt").write_text(text[-20000:])


def worker(number):
    turn = 0
    while True:
        left = start + seconds * (1 - MERGE_SHARE) - time.monotonic()
        if left < 3:
            return
        with lock:
            reader = min(readers, key=lambda r: done[r] + coming[r])
        first = time.monotonic() < start + seconds * CHECKED_SHARE
        turn += 1
        chunk(checked if first or not fast else fast, reader, min(CHUNK, left), 1 + number + 1000 * turn + 10**6 * rounds)


def minimise(reader):
    left = start + seconds - time.monotonic()
    kept = out / "corpus" / reader
    kept.mkdir(parents=True, exist_ok=True)
    code, text = execute(command(checked, reader, "-merge=1", kept, corpus / reader, out / "found" / reader),
                         max(left, 5))
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
print(f"{'reader':12} {'executions':>12} {'with ASan':>12} {'corpus':>7}")
for r in readers:
    print(f"{r:12} {done[r]:12,} {done_checked[r]:12,} {len(list((out / 'corpus' / r).iterdir())):7}")
print(f"{sum(done.values()):,} executions in {fuzzed:.0f} s by {jobs} processes; {len(findings)} findings")
for finding in findings:
    print("finding:", *finding)
sys.exit(1 if findings else 0)
