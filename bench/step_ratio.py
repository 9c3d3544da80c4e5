#!/usr/bin/env python3
"""Median seconds of a run's Lighthouse and dense steps, and their ratio: step_ratio.py FOLDER.

The first step of a stage, which touches its memory for the first time, is left out where there are others.
"""
import json
import pathlib
import statistics
import sys


def main(folder):
    steps = {"lighthouse": [], "dense": []}
    for line in (pathlib.Path(folder) / "log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["kind"] == "step":
            steps[entry["stage"]].append((entry["seconds"], sum(entry["attention"])))
    median = {}
    for stage, found in steps.items():
        if not found:
            sys.exit(f"step_ratio.py: {folder} has no {stage} steps, wanted both stages")
        used = found[1:] or found
        median[stage] = statistics.median(s for s, _ in used)
        attention = statistics.median(a for _, a in used)
        print(f"{stage:10} {len(used)} steps, {median[stage]:.3f} s, {attention:.3f} s of it attention")
    print(f"a Lighthouse step is {median['dense'] / median['lighthouse']:.2f} times as fast")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("step_ratio.py: argument is missing, wanted the folder of a run")
    main(sys.argv[1])
