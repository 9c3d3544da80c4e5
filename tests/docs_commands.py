#!/usr/bin/env python3
"""Every command that README and docs show, executed: docs_commands.py BUILD [--list]

Commands are the lines of code blocks, and code in running text, that start like one. They run in a scratch folder in which the
source's folders and build/ can be seen, page by page in order, so that one may use what another has made. What would take
hours runs with smaller numbers (SMALLER); what cannot run here is listed with the reason (CANNOT) and everything else must
succeed. A command that is neither is run as it stands: that is how a new one enters.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

root = pathlib.Path(__file__).resolve().parent.parent
LONGEST = 240  # seconds a command may take
PROGRAMS = re.compile(r"(?:[A-Z_]+=\S+ )*(?:build/(?:lighthouse|tests/\S+)|lighthouse|\./bootstrap|meson|ninja|pip|python3|make|mkdir|mpirun|man|ncu|"
                      r"(?:tests|examples|exercises|bench|docs/book)/[\w.-]+\.(?:py|sh))(?: |$)")

TRAIN = ("--context 64 --width 16 --layers 2 --heads 2 --kv-heads 1 --dim 8 --hidden 32 --levels 2 --pool 2 --topk 4 --tile-topk 4 "
         "--batch 1 --micro-batch 1 --warmup 1 --lighthouse-steps 2 --dense-steps 2 --checkpoint-every 2 --probes 0 --held-out-windows 1 "
         "--dense-layers 0 --backend ref --retrieval-trials 1 --passkey 0")
# (what it looks like, what is put behind it): later options override earlier ones.
SMALLER = [
    (r"lighthouse train .*--(?:resume|generate|evaluate|export)", None),
    (r"lighthouse train .*--finetune", "--dense-steps 1 --text text"),
    (r"lighthouse train ", TRAIN + " --text text"),
    (r"lighthouse bench ", "--tokens 256 --topk 4 --tile-topk 4 --seconds 0.001 --heads 1 --kv-heads 1 --dim 8"),
    (r"^exercises/start\.py", "--build build"),
    (r"^make -C my-port", "; test $? -eq 2"),  # nothing is written yet, and make says so
    (r"lighthouse verify --case 'd\*'", "--backend ref --dtype f16"),
    (r"lighthouse verify --large", "--large=2048"),
    (r"lighthouse verify(?!.*--(?:list|manifest|case|ranks))", "--case small --backend ref"),
    (r"lighthouse verify --ranks", "--case many-tiles --backend ref"),
]
CANNOT = [
    (r"\./bootstrap|^meson |meson setup|^ninja ", "is how this very test comes to run, or takes its place"),
    (r"^meson install|pip install", "installs; tests/install.sh does it into a folder of its own"),
    (r"bench/cuda_table\.py|--backend cuda|--attention|^ncu |compute-sanitizer|--gpus gpus\.txt", "needs an NVIDIA GPU"),
    (r"bench/pytorch_attention\.py|torch_", "needs PyTorch"),
    (r"tests/(?:bits-matrix|all|fuzz|oclgrind|ref-alone)\.sh", "is a step of the suite itself"),
    (r"^(?:[A-Z_]+=\S+ )*(?:build/tests/|tests/|python3 tests/)", "is a test of the suite itself"),
    (r"--(?:backend|probe) opencl|lighthouse tune|LIGHTHOUSE_OPENCL|POCL", "needs an OpenCL device"),
    (r"^mpirun|--check points\.txt", "needs MPI"),
    (r"^man ", "needs man-db"),
    (r"lighthouse train --resume --dense-steps 3000", "would train 3,000 steps"),
    (r"lighthouse train .*--(?:compare|budget entropy)", "trains several models; tests/test_train_runs.c does it small"),
    (r"http\.server", "serves until it is stopped"),
]
# A form, not a command: placeholders in capitals, ellipses.
FORM = re.compile(r"(?<![\w=-])[A-Z]{2,}(?:\.\w+)?(?![\w=])|…|\.\.\.|\[|<")
# What a block of Python takes for granted: a port of the reader's own.
PRELUDE = """
import sys
sys.path.insert(0, "examples")
def my_port(q, k, v, dout):
    import numpy_port
    return numpy_port.layer(q, k, v, 3, 2, 16, 8, dout)
"""
BEFORE = r"""
lighthouse vectors --tokens 64 --dim 4 --topk 8 --tile-topk 4 DUMP.safetensors
lighthouse vectors --tokens 4096 --dim 8 --heads 1 --pool 4 --topk 128 --tile-topk 128 in.safetensors
mkdir text && cp include/lighthouse.h docs/*.md text && cp -r text notes
"""


def pages():
    names = subprocess.run(["git", "-C", root, "ls-files", "*.md"], text=True, stdout=subprocess.PIPE).stdout.split()
    names = names or [str(p.relative_to(root)) for p in sorted(root.rglob("*.md"))]
    return [n for n in names if not re.match(r"docs/book/\d|build|shared/", n)]  # the book runs its own


def clean(line):
    """A command without its prompt and without the words behind it."""
    line = re.sub(r"^\$ ", "", line.strip())
    return re.split(r" {2,}|\s+#(?!include)", line)[0].strip()


def commands(text):
    """(line number, command), code blocks first come, then code in running text."""
    inside, lines, i = False, text.splitlines(), 0
    while i < len(lines):
        line = lines[i]
        at = i + 1
        if line.startswith("```"):
            inside = not inside
        elif inside or (line.startswith("    ") and PROGRAMS.match(line.strip())):
            if PROGRAMS.match(re.sub(r"^\$ ", "", line.strip())):
                whole = line.strip()
                while whole.endswith("\\"):
                    i += 1
                    whole = whole[:-1] + lines[i].strip()
                yield at, clean(whole)
        else:
            for found in re.findall(r"`([^`]+)`", line):
                if PROGRAMS.match(found) and " -" in found:
                    yield at, clean(found)
        i += 1


def scripts(text):
    """(line number, code) of the Python blocks."""
    for found in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S):
        yield text.count("\n", 0, found.start()) + 2, found[1]


def kind(command):
    """("run", what is run) or ("cannot" or "form", why)."""
    for pattern, why in CANNOT:
        if re.search(pattern, command):
            return "cannot", why
    if FORM.search(re.sub(r"DUMP\.safetensors|[A-Z_]+=\S+|'[^']*'", "", command)):
        return "form", "shows a form"
    for pattern, more in SMALLER:
        if re.search(pattern, command):
            program, bar, reader = command.partition(" | ")
            return "run", f"{program} {more}{bar}{reader}" if more else command
    return "run", command


def main(build, only_list):
    wanted = [(page, at, command, *kind(command)) for page in pages() for at, command in commands((root / page).read_text())]
    failed = ran = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        for name in ("train", "docs", "examples", "exercises", "include", "python", "tests", "bench"):
            (folder / name).symlink_to(root / name)
        shutil.copytree(root / "data", folder / "data")  # one command writes into it
        (folder / "build").symlink_to(build)
        (folder / "bin").mkdir()
        (folder / "bin" / "lighthouse").symlink_to(build / "lighthouse")
        environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "LIGHTHOUSE_LIBRARY": str(build / "liblighthouse.so"),
                       "PYTHONPATH": str(root / "python"), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}

        def execute(arguments):
            """(exit status, what was printed); a command that does not end is one that fails."""
            try:
                ended = subprocess.run(arguments, cwd=folder, env=environment, text=True, errors="replace", timeout=LONGEST,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            except subprocess.TimeoutExpired:
                return 124, f"did not end in {LONGEST} s"
            return ended.returncode, ended.stdout

        def run(command):
            return execute(["bash", "-c", command])

        if not only_list and run("set -e\n" + BEFORE.strip())[0] != 0:
            sys.exit("docs_commands.py: what the commands need could not be made")
        done = {}
        for page, at, command, what, detail in wanted:
            if what != "run":
                print(f"{what:6} {page}:{at}: {command}\n       {detail}")
                continue
            if only_list:
                print(f"run    {page}:{at}: {detail}")
                continue
            if detail not in done:
                started = time.monotonic()
                done[detail] = run(detail)
                took = time.monotonic() - started
                if took > 3:
                    print(f"{took:5.1f} s {page}:{at}: {detail}")
            ran += 1
            status, printed = done[detail]
            if status != 0:
                failed += 1
                print(f"FAILED {page}:{at}: {detail}\n{printed[-1500:]}")
        for page in pages():
            for at, code in scripts((root / page).read_text()) if not only_list else ():
                status, printed = execute([sys.executable, "-c", PRELUDE + code])
                absent = re.search(r"ModuleNotFoundError: No module named '([^']+)'", printed)
                print(f"{'cannot' if absent else 'run   ' if status == 0 else 'FAILED'} {page}:{at}: Python, "
                      f"{code.count(chr(10))} lines{', needs ' + absent[1] if absent else ''}")
                if status != 0 and not absent:
                    failed += 1
                    print(printed[-1500:])
        print(f"{len(wanted)} commands: {ran} run, {failed} failed, {sum(w[3] == 'cannot' for w in wanted)} cannot run here, "
              f"{sum(w[3] == 'form' for w in wanted)} are forms")
        shutil.rmtree(folder / "runs", ignore_errors=True)
    return failed != 0 or (not only_list and ran == 0)


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve(), "--list" in sys.argv))
