#!/usr/bin/env python3
"""Every section of docs/spec.md, file and document that a comment, a page or a script names exists.

usage: citations.py ROOT
"""
import re
import subprocess
import sys
from pathlib import Path

root = Path(sys.argv[1])
SOURCE = {".c", ".h", ".cl", ".cu", ".cuh", ".def"}
TEXT = SOURCE | {".md", ".py", ".sh", ".build", ".ini", ".1", ".txt", ".html", ".js"}
SECTION = re.compile(r"\bSPEC (\d+(?:\.\d+)?)((?:(?:, | and )\d+\.\d+)*)")
PATH = re.compile(r"(?<![\w./~$*<>{}-])((?:[\w-]+/)+[\w.-]+\.(?:cuh|cu|cl|c|h|md|py|sh|ini|json|def|svg|txt|build))\b(?![\w*])")
NAME = re.compile(r"(?<![\w./*<>{}-])([\w-]+\.(?:cuh|cu|cl|c|h|md))\b(?![\w/(*])")
LINK = re.compile(r"""\]\(([^)#:\s"]+)(?:#[^)]*)?\)""")
# Made by the build, written by an example of a command, or another project's.
ELSEWHERE = re.compile(r"^(build[\w-]*|FOLDER|NAME|abacus|site|runs?|upstream|usr|tmp|etc|home|my|port)/|core/backends_built|(../)?play\.md|api-\w+\.md|^(cuda_runtime|cudnn|mpi|omp|math|CL/cl|libgomp)\.")


def tracked():
    try:
        names = subprocess.run(["git", "-C", str(root), "ls-files"], check=True, capture_output=True, text=True).stdout
        return [root / name for name in names.splitlines() if (root / name).is_file()]
    except (OSError, subprocess.CalledProcessError):
        return [p for p in root.rglob("*") if p.is_file() and not any(x.startswith((".", "build")) for x in p.relative_to(root).parts)]


def comments(path, text):
    """Comments of C-like sources, on the lines where they stand; other files whole."""
    if path.suffix not in SOURCE:
        return text
    kept, at = "", 0
    for match in re.finditer(r"/\*.*?\*/|//[^\n]*", text, flags=re.S):
        kept += "\n" * text.count("\n", at, match.start()) + match.group(0)
        at = match.end()
    return kept


def main():
    files = tracked()
    names = {p.name for p in files}
    sections = set(re.findall(r"^#{2,3} (\d+(?:\.\d+)?)\.? ", (root / "docs/spec.md").read_text(), flags=re.M))
    cited = 0
    missing = []
    for path in files:
        if path.suffix not in TEXT or path == root / "tests/citations.py" or "corpus" in path.parts:
            continue
        text = path.read_text(errors="replace")
        for number, line in enumerate(text.split("\n"), 1):
            for match in SECTION.finditer(line):
                for section in [match.group(1)] + re.findall(r"\d+\.\d+", match.group(2)):
                    cited += 1
                    if section not in sections:
                        missing.append(f"{path.relative_to(root)}:{number}: SPEC {section} is cited and does not exist")
        for number, line in enumerate(comments(path, text).split("\n"), 1):
            wanted = []
            for name in PATH.findall(line) + (LINK.findall(line) if path.suffix == ".md" else []):
                if not ELSEWHERE.match(name):
                    places = (root / name, path.parent / name, root / "ref" / name)
                    wanted.append((name, any(place.exists() for place in places)))
            if path.suffix in SOURCE | {".md"}:
                for name in NAME.findall(line):
                    if not ELSEWHERE.match(name):
                        wanted.append((name, name in names))
            wanted = list(dict.fromkeys(wanted))
            cited += len(wanted)
            missing += [f"{path.relative_to(root)}:{number}: {name} is cited and does not exist" for name, there in wanted if not there]
    print("\n".join(missing) if missing else f"{cited} citations of {len(files)} files: all exist")
    return 1 if missing else 0


sys.exit(main())
