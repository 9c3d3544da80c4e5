#!/usr/bin/env python3
"""The numbers of docs/algorithm.md against the reference: docs_figures.py LIBRARY. 77 = SKIP without NumPy.

Every row of its tables that names a tensor is read as it stands, a value a cell, a fraction where it gives one, and compared to
as many digits as it shows.
"""
import os
import pathlib
import re
import sys
from fractions import Fraction

root = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root / "python"))
os.environ["LIGHTHOUSE_LIBRARY"] = sys.argv[1]
try:
    import numpy as np
except ImportError:
    print("SKIP: no NumPy (Debian: python3-numpy)")
    sys.exit(77)
import lighthouse

LN2 = np.log(2)
UNITS = {"½": "1/2", "−": "-"}
# How a row is headed in the page: tensor, unit, levels of a pyramid.
ROWS = {
    "**index**": ("index", 1), "coverage": ("coverage", 1), "**out**": ("out", 1), "lse": ("lse", 1), "o_sel": ("o_sel", 1),
    "q_sel / ln 2": ("q_sel", LN2), "k_sel": ("k_sel", 1), "v_sel": ("v_sel", 1), "do_sel": ("do_sel", 1),
    "dq_sel": ("dq_sel", 1), "dk_sel": ("dk_sel", 1), "dv_sel": ("dv_sel", 1), "dq": ("dq", 1), "dk": ("dk", 1), "dv": ("dv", 1),
    "q / ln 2": ("q", LN2), "k": ("k", 1), "v": ("v", 1), "dout": ("dout", 1),
    "score_q / ln 2": ("score_q", LN2), "score_k": ("score_k", 1),
}
PYRAMIDS = {"q / ln 2": ("q_pyr", LN2), "k": ("k_pyr", 1), "v": ("v_pyr", 1)}  # pairs and fours alone


def value(text):
    """(number, the half of its last digit)."""
    for sign, plain in UNITS.items():
        text = text.replace(sign, plain)
    digits = len(text.split(".")[1]) if "." in text else None
    return float(Fraction(text)), 0.5000001 * 10.0**-digits if digits else 1e-9


def rows(text):
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) > 2 and not set(line) <= set("|-"):
            yield cells[0], " ".join(cells[1:]).split()


def main():
    text = (root / "docs" / "algorithm.md").read_text()
    inputs = {}
    for name, cells in rows(text):
        if name in ("q / ln 2", "k", "v", "dout") and name not in inputs and len(cells) == 12:
            inputs[name] = np.array([value(c)[0] for c in cells]).reshape(1, 1, 12, 1)
    t = lighthouse.trace(inputs["q / ln 2"] * LN2, inputs["k"], inputs["v"], inputs["dout"], levels=3, pool=2, topk=2, tile_topk=2)
    wrong, seen = [], set()
    for name, cells in rows(text):
        tensor, unit = PYRAMIDS[name] if name in PYRAMIDS and len(cells) == 9 else ROWS.get(name, (None, 1))
        if tensor is None or not all(re.fullmatch(r"[−-]?[\d./½]+", c) for c in cells):
            continue
        wanted = t[tensor].ravel() / unit
        wanted = wanted[12:] if tensor.endswith("_pyr") else wanted
        if len(cells) not in (len(wanted), 6) or (len(cells) == 6 and len(wanted) != 6):  # six tokens: another example
            if len(cells) != 6:
                wrong.append(f"{name}: {len(cells)} cells, wanted {len(wanted)}")
            continue
        seen.add(tensor)
        for i, cell in enumerate(cells):
            found, half = value(cell)
            if abs(found - wanted[i]) > half:
                wrong.append(f"{name}[{i}] is {cell}, wanted {wanted[i]:.6f}")
    absent = {tensor for tensor, _ in [*ROWS.values(), *PYRAMIDS.values()]} - seen
    wrong += [f"no row of {tensor} was found, wanted one" for tensor in sorted(absent)]
    print("\n".join(wrong) or f"{len(seen)} tensors of docs/algorithm.md as the reference has them")
    return bool(wrong)


sys.exit(main())
