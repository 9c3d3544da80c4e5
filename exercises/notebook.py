"""Runs the code cells of a notebook in order, in one namespace: notebook.py FILE.ipynb. An exception ends it."""
import json
import sys

names = {"__name__": "__main__"}
for number, cell in enumerate(json.load(open(sys.argv[1], encoding="utf-8"))["cells"]):
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
