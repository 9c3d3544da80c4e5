#!/usr/bin/env python3
"""Lays out the exercises: start.py FOLDER [--build BUILD]

FOLDER/c is ref/ with the bodies of seven functions taken out, FOLDER/python is examples/numpy_port.py likewise; beside them
the tests and a Makefile. BUILD is the folder this project was built in (build). Nothing is copied by hand: what is taken out
is taken out here, from the sources as they are, and a function that has moved is an error.
"""
import argparse
import ast
import pathlib
import re
import shutil
import sys

here = pathlib.Path(__file__).resolve().parent
root = here.parent

# What is asked for: file of ref/, function, what stands in its place besides the call of not_written().
C = [
    ("pool.c", "ref_pool", ""),
    ("score.c", "ref_score", ""),
    ("select.c", "select_tile", "return 0;"),
    ("select.c", "make_parent", ""),
    ("attend.c", "ref_attend", ""),
    ("scatter.c", "ref_scatter", ""),
    ("pool.c", "ref_unpool", ""),
]
PYTHON = ["pool", "score", "select", "spans", "attend", "layer", "backward"]


def take_out_c(text, file, name, rest):
    """The function's body gone, its comment and signature kept."""
    found = re.search(rf"^[a-z][^;{{}}]*\b{name}\([^;{{}}]*\)\n\{{\n(.*?)^\}}$", text, re.M | re.S)
    if not found:
        sys.exit(f"start.py: ref/{file} has no function {name}, wanted one to take out")
    lines = [f'    not_written("{name}");'] + ([f"    {rest}"] if rest else [])
    return text[: found.start(1)] + "\n".join(lines) + "\n" + text[found.end(1) :]


def lay_out_c(folder, build):
    folder.mkdir(parents=True)
    for file in [*root.glob("ref/*.c"), *root.glob("ref/*.h")]:
        text = file.read_text()
        for wanted, name, rest in C:
            if wanted == file.name:
                text = take_out_c(text, wanted, name, rest)
        if any(wanted == file.name for wanted, _, _ in C):
            text = text.replace('#include "ref.h"', '#include "ref.h"\n#include "try.h"', 1)
        (folder / file.name).write_text(text)
    for name in ("try.c", "try.h"):
        shutil.copy(here / name, folder / name)
    (folder / "Makefile").write_text(
        f"""# `make` tells which of the seven are right.
INCLUDE = {root / "include"}
LIBRARY = {build}
CFLAGS = -std=gnu11 -O1 -g -Wall -Wno-unused-function -ffp-contract=off -I. -I"$(INCLUDE)"
OBJECTS = {" ".join(sorted(f.stem + ".o" for f in folder.glob("*.c")))}

all: try
\t@./try

try: $(OBJECTS)
\t$(CC) $(OBJECTS) -L"$(LIBRARY)" -Wl,-rpath,"$(LIBRARY)" -llighthouse -lm -o $@

$(OBJECTS): $(wildcard *.h)

.PHONY: all
"""
    )


def take_out_python(text):
    lines, tree = text.splitlines(), ast.parse(text)
    found = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for name in sorted(PYTHON, key=lambda n: -found[n].lineno if n in found else 0):
        if name not in found:
            sys.exit(f"start.py: examples/numpy_port.py has no function {name}, wanted one to take out")
        node = found[name]
        lines[node.body[0].end_lineno : node.end_lineno] = [f'    raise NotImplementedError("{name}")']
    main = next(i for i, line in enumerate(lines) if line.startswith("if __name__"))
    return "\n".join(lines[:main]).rstrip() + "\n"


def lay_out_python(folder, build):
    folder.mkdir(parents=True)
    (folder / "port.py").write_text(take_out_python((root / "examples" / "numpy_port.py").read_text()))
    shutil.copy(here / "try.py", folder / "try.py")
    (folder / "Makefile").write_text(
        f"""# `make` tells which of the seven are right. Needs NumPy.
PYTHON = python3
all:
\t@LIGHTHOUSE_LIBRARY="{build}/liblighthouse.so" PYTHONPATH="{root / "python"}" $(PYTHON) try.py

.PHONY: all
"""
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="a new folder, for your own c/ and python/")
    parser.add_argument("--build", type=pathlib.Path, default=root / "build",
                        help="folder of a finished build (build in the source tree)")
    given = parser.parse_args()
    if given.folder.exists():
        sys.exit(f"start.py: {given.folder} is there already, wanted a new folder: work in it might be lost")
    if not (given.build / "liblighthouse.so").exists():
        sys.exit(f"start.py: {given.build} holds no liblighthouse.so, wanted the folder of a finished build: --build FOLDER")
    lay_out_c(given.folder / "c", given.build.resolve())
    lay_out_python(given.folder / "python", given.build.resolve())
    print(f"{given.folder}/c and {given.folder}/python: write the seven, and run make in either")
