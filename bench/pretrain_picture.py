#!/usr/bin/env python3
"""Draws runs of torch_pretrain.py: held-out loss under dense attention over text and over seconds, with gnuplot, as chart/chart.c does.

    python3 bench/pretrain_picture.py PICTURE.svg RUN.jsonl [RUN.jsonl ...]

Runs that differ in their seeds alone have one colour; dashed is a shorter run that left a longer one; a vertical line is a switch.
"""
import json
import subprocess
import sys
from pathlib import Path

COLOURS = ("#0060ad", "#c2410c", "#15803d", "#7e22ce")


def curves(path):
    """(title, dashed, [(megabytes, seconds, loss)], where it became dense) of a run and of those that left it."""
    run, *points = [json.loads(line) for line in Path(path).read_text().splitlines()]
    title = run["attention"]
    if title == "two-stage":
        title = f"{100 * run['share']:.0f} % dense" + (", one by one" if run["back"] else "")
    for of in sorted({p["of"] for p in points}, reverse=True):
        own = [(p["tokens"] / 1e6, p["seconds"], p["held_out"]) for p in points if p["of"] == of]
        dense = [p for p in points if p["of"] == of and p["dense_layers"] == run["depth"]]
        switch = (dense[0]["tokens"] / 1e6, dense[0]["seconds"]) if run["attention"] == "two-stage" and len(dense) > 1 else None
        yield title, of != run["steps"], own, switch


def script(runs):
    found = [curve for path in runs for curve in curves(path)]
    titles = list(dict.fromkeys(title for title, *_ in found))
    if len(titles) > len(COLOURS):
        raise ValueError(f"{len(titles)} kinds of runs, wanted at most {len(COLOURS)}")
    for i, (_, _, points, _) in enumerate(found):
        yield f"$s{i} << END\n" + "".join(f"{x:.9g} {y:.9g} {z:.9g}\n" for x, y, z in points) + "END\n"
    yield ("set terminal svg size 800,400 dynamic font 'sans,12' background rgb 'white'\n"
           "set border 3\nset grid xtics ytics lt 1 lc rgb '#d8dee4' lw 1\nset tics nomirror\n"
           "set key at screen 0.075, screen 0.95 left top vertical maxrows 1 reverse Left samplen 2\n"
           "set multiplot layout 1,2 margins 0.075, 0.975, 0.14, 0.8 spacing 0.1\n")
    for panel, x_title in enumerate(("MB of text", "seconds of steps")):
        yield f"unset arrow\nset xrange [0:*]\nset title 'held-out loss, nats a byte'\nset xlabel '{x_title}'\n"
        for title, _, _, switch in found:
            if switch:
                yield (f"set arrow from first {switch[panel]:.9g}, graph 0 to first {switch[panel]:.9g}, graph 1 nohead dt 2 "
                       f"lc rgb '{COLOURS[titles.index(title)]}'\n")
        lines = [f"$s{i} using {panel + 1}:3 with linespoints lw 1.6 dt {2 if dashed else 1} pt 7 ps 0.4 "
                 f"lc rgb '{COLOURS[titles.index(title)]}' "
                 + (f"title '{title}'" if panel == 0 and i == [t for t, *_ in found].index(title) else "notitle")
                 for i, (title, dashed, _, _) in enumerate(found)]
        yield "plot " + ", ".join(lines) + "\n"
    yield "unset multiplot\n"


def main():
    if len(sys.argv) < 3:
        print("pretrain_picture.py: no PICTURE.svg and RUN.jsonl, wanted both", file=sys.stderr)
        sys.exit(2)
    try:
        text = "".join(script(sys.argv[2:]))
        drawn = subprocess.run(["gnuplot"], input=text.encode(), stdout=subprocess.PIPE, check=True).stdout
    except (OSError, ValueError, LookupError, subprocess.CalledProcessError) as error:
        print(f"pretrain_picture.py: {error}", file=sys.stderr)
        sys.exit(2)
    Path(sys.argv[1]).write_bytes(drawn)


if __name__ == "__main__":
    main()
