#!/usr/bin/env python3
"""The shape of the house: who may include whom, no circle among files, no port named outside its folder.

usage: house.py ROOT BUILD

Layers, outermost first; a file includes from its own layer and from those below. ref/ includes nothing but itself. Calls between
files are taken from the object files of BUILD (nm), so a circle is one that the linker sees.
"""
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

root, build = Path(sys.argv[1]), Path(sys.argv[2])
table = re.findall(r"^LH_BACKEND\((\w+), (\w+),", (root / "core/backends.def").read_text(), flags=re.M)
folders = [folder for _, folder in table]
ports = [name for name, _ in table[1:]]  # the first is the reference, which everything may name
LAYERS = [["cli"], ["train", "bench", "explain"], ["chart", "check"], ["verify"], ["dist"], folders, ["core"], ["include"]]
LEVEL = {folder: i for i, group in enumerate(LAYERS) for folder in group}
# What holds the reference itself to account leans on ref/ through scalar/run.h, as its port does.
SCALAR = folders[0]
problems = []


def sources(*suffixes):
    for folder in list(LEVEL) + ["ref"]:
        yield from (p for s in suffixes for p in sorted((root / folder).rglob("*" + s)) if "tests" not in p.relative_to(root).parts)


def check_includes():
    for path in sources(".c", ".h", ".cu", ".cuh"):
        here = path.relative_to(root).parts[0]
        for name in re.findall(r'^#include "([^"]+)"', path.read_text(), flags=re.M):
            there = name.split("/")[0] if "/" in name else here if (path.parent / name).exists() else "include"
            if here == "ref":
                if there != "ref":
                    problems.append(f"{path.relative_to(root)} includes {name}, wanted nothing outside ref/")
            elif there == "ref":
                if here not in (SCALAR, "explain"):  # explain shows ref/ itself
                    problems.append(f"{path.relative_to(root)} includes {name}, wanted it in {SCALAR}/")
            elif there != here and name != "core/backends_built.h":
                same_level = LEVEL[there] == LEVEL[here] and there in folders
                if LEVEL[there] < LEVEL[here] or (same_level and there != SCALAR):
                    problems.append(f"{path.relative_to(root)} includes {name}: {there} lies above {here}")
                if there in folders and there != SCALAR and here != there:
                    problems.append(f"{path.relative_to(root)} includes {name}: a port is known to the table alone")


def check_names():
    """A port's name in a string or a condition of the build, outside its folder, is a comparison waiting to be forgotten."""
    word = re.compile(r'"(?:%s)"' % "|".join(ports))
    for path in sources(".c", ".h"):
        here = path.relative_to(root).parts[0]
        code = re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group(0).count("\n"), path.read_text(), flags=re.S)
        for number, line in enumerate(code.split("\n"), 1):
            found = word.search(line)
            if found and here != dict(table)[found.group(0).strip('"')]:
                problems.append(f"{path.relative_to(root)}:{number} names {found.group(0)}, which the table alone may")
    for path in sorted(root.glob("*/meson.build")) + [root / "meson.build"]:
        here = path.parent.name
        for port in ports:
            if here != port and re.search(rf"(?<!dependency\()'{port}'", path.read_text()):
                problems.append(f"{path.relative_to(root)} names '{port}', which the table and the option alone may")


def check_circles():
    defined, used, sources_of = {}, defaultdict(set), {}
    for obj in sorted(build.rglob("*.o")):
        match = re.search(r"([\w.-]+)\.c\.o$", obj.name)
        # meson flattens ../core/plan.c of the target in core/ to plan.c.o below core/libcore.a.p/
        target = obj.relative_to(build).parts
        if match and len(target) > 1 and target[0] not in ("tests", "ref") and "tests" not in target[0]:
            folder = target[0] if target[0] in LEVEL else match.group(1).split("_")[0]
            sources_of[str(obj)] = f"{folder}/{match.group(1).removeprefix(folder + '_')}.c"
    if not sources_of:
        problems.append(f"{build} has no object files to look at")
        return
    listed = subprocess.run(["nm", "-A", "-g", *sources_of], capture_output=True, text=True).stdout
    for line in listed.splitlines():
        path, rest = line.split(":", 1)
        *_, kind, symbol = rest.split()
        if kind == "U":
            used[sources_of[path]].add(symbol)
        elif kind.isupper():
            defined[symbol] = sources_of[path]
    calls = {source: {defined[s] for s in symbols if s in defined} - {source} for source, symbols in used.items()}
    for circle in strong_components(calls):
        problems.append("a circle: " + " <-> ".join(sorted(circle)))


def strong_components(graph):
    """Tarjan's, as a loop: components of more than one file."""
    index, low, stack, found, counter = {}, {}, [], [], 0
    for start in graph:
        if start in index:
            continue
        work = [(start, iter(sorted(graph[start])))]
        index[start] = low[start] = counter = counter + 1
        stack.append(start)
        while work:
            node, rest = work[-1]
            for other in rest:
                if other not in index:
                    index[other] = low[other] = counter = counter + 1
                    stack.append(other)
                    work.append((other, iter(sorted(graph.get(other, ())))))
                    break
                if other in stack:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = [stack.pop()]
                    while component[-1] != node:
                        component.append(stack.pop())
                    if len(component) > 1:
                        found.append(component)
    return found


check_includes()
check_names()
check_circles()
print("\n".join(problems) if problems else "no port is named outside its folder, no include goes up, no circle among files")
sys.exit(1 if problems else 0)
