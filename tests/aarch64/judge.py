"""judge.py FOLDER [--jobs N] [--seconds S] [--only PATTERN] [--list]: what build.sh left in FOLDER, run under qemu-user.

Every suite that meson knows and that is a program of its own runs; `verify` and suite exposes case by case, openmp's suite test case by test case,
each in a process of its own, N at a time. A line a process: seconds, verdict, name, and for what failed its last lines. Exit status 1 where
one failed or did not end in S seconds. qemu-user is taken from QEMU, else from PATH.
"""

import argparse
import concurrent.futures
import fnmatch
import json
import os
import pathlib
import re
import subprocess
import sys
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
# What the emulator is in the way of, and not the processor.
ASIDE = {
    "allocations": "preloads a library into a program that the host's shell starts",
    "process": "limits the address space, of which the emulator itself takes more",
}
# Two threads are what there must be to have any, and emulated ones must not spin.
FOR_ALL = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive", "CK_TIMEOUT_MULTIPLIER": "10", "HONEST_PORTS": "100"}


def emulator(folder):
    return [os.environ.get("QEMU", "qemu-aarch64"), "-L", str(folder / "root")]


def write_program(folder):
    """What the suites start as LIGHTHOUSE: the kernel cannot exec a program of another processor, but a script."""
    program = folder / "lighthouse"
    program.write_text('#!/bin/sh\nexec %s %s "$@"\n' % (" ".join(emulator(folder)), folder / "build/lighthouse"))
    program.chmod(0o755)
    return program


def test_cases(suite):
    """The names of a suite's test cases, as its source has them."""
    source = SOURCE / "openmp/tests" / (suite + ".c")
    names = re.findall(r'suite_case\(\w+, ([^)]*)\)', source.read_text())
    if not names or not all(re.fullmatch(r'"[^"]*"', name) for name in names):
        sys.exit(f"{source}: test cases have names that are no literals: {names}")
    return [name.strip('"') for name in names]


def cases(folder):
    listed = subprocess.run([folder / "lighthouse", "verify", "--list"], capture_output=True, text=True, check=True)
    return [line.split()[0] for line in listed.stdout.splitlines() if not line.startswith(" ")]


def processes(folder):
    """(name, command, environment) of each, and what was set aside."""
    found, aside = [], []
    build = str(folder / "build") + "/"
    for test in json.loads((folder / "tests.json").read_text()):
        command = test["cmd"]
        if any(suite.endswith((":once", ":bits")) for suite in test["suite"]) or not command[0].startswith(build):
            continue
        name, first = test["name"], test["name"].split()[0]
        if first in ASIDE:
            aside.append((name, ASIDE[first]))
            continue
        where = dict(test["env"], LIGHTHOUSE=str(folder / "lighthouse"))
        run = emulator(folder) + command
        if first == "verify":
            found += [(f"{name} {case}", run + ["--case", case], where) for case in cases(folder)]
        elif name == "exposes":
            found += [(f"exposes {case}", run + [case], where) for case in cases(folder)]
        elif name == "openmp":
            found += [(f"openmp: {case}", run, dict(where, CK_RUN_CASE=case)) for case in test_cases("test_openmp")]
        else:
            found.append((name, run, where))
    return found, aside


def judge(process, folder, seconds):
    name, command, where = process
    environment = {**os.environ, **where, **FOR_ALL, "LIGHTHOUSE_DATA": str(SOURCE / "data")}
    started = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             errors="replace", env=environment, cwd=folder / "build")
    try:
        said = child.communicate(timeout=seconds)[0]
        verdict = {0: "ok", 77: "skipped"}.get(child.returncode, f"FAILED ({child.returncode})")
        if "nothing was compared, wanted a backend that computes" in said: # the reference leaves large cases out
            verdict = "skipped"
    except subprocess.TimeoutExpired:
        child.terminate() # upon which Check ends the test case that it has forked
        verdict, said = "LATE", child.communicate()[0]
    return name, verdict, time.monotonic() - started, said.strip().splitlines()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--only", default="*", help="names that match this shell pattern")
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    write_program(given.folder)
    found, aside = processes(given.folder)
    found = [process for process in found if fnmatch.fnmatch(process[0], given.only)]
    if given.list or not found:
        print("\n".join(process[0] for process in found) or f"nothing matches {given.only}")
        return 0 if found else 2
    for name, why in aside:
        print(f"        aside   {name}: {why}")
    count = {"ok": 0, "skipped": 0}
    tensors = 0
    with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
        running = [pool.submit(judge, process, given.folder, given.seconds) for process in found]
        for done in concurrent.futures.as_completed(running):
            name, verdict, took, said = done.result()
            count[verdict] = count.get(verdict, 0) + 1
            tensors += sum(int(number) for number in re.findall(r"(\d+) tensors compared", "\n".join(said)))
            print(f"{took:7.1f} {verdict:7} {name}", flush=True)
            if verdict not in ("ok", "skipped"):
                print("\n".join("            " + line for line in said[-12:]), flush=True)
    print(f"{len(found)} processes: " + ", ".join(f"{number} {verdict}" for verdict, number in count.items()) +
          f"; verify compared {tensors} tensors; {len(aside)} suites set aside")
    return 0 if count["ok"] + count["skipped"] == len(found) and count["ok"] > 0 else 1


sys.exit(main())
