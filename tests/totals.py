#!/usr/bin/env python3
"""Totals of one `meson test` run: totals.py FOLDER/meson-logs/NAME.json

A line for each test: Check's own totals for a Check suite, the result for any other program; then the slowest. The last line is three
numbers: passed, failed, skipped. A Check suite counts as its checks, any other program as one."""
import json
import re
import sys

CHECKS = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)$", re.MULTILINE)
UNITS = re.compile(r"^stat::number_of_executed_units: (\d+)$", re.MULTILINE)

passed = failed = skipped = 0
durations = []
for line in open(sys.argv[1], encoding="utf-8"):
    test = json.loads(line)
    durations.append((test["duration"], test["name"].split(" / ")[-1]))
    output = test.get("stdout", "")
    checks = CHECKS.search(output)
    units = UNITS.search(output)
    word = test["result"]
    if word == "SKIP":
        skipped += 1
        summary = next((l for l in output.splitlines() if "SKIP" in l), "SKIP")
    elif checks:
        run, failures, errors = map(int, checks.groups())
        bad = failures + errors
        if word != "OK":
            bad = max(bad, 1)
        passed += run - bad
        failed += bad
        summary = checks.group(0)
    else:
        passed += word == "OK"
        failed += word != "OK"
        summary = word + (f", {units.group(1)} inputs" if units else "")
    print(f"   {test['name'].split(' / ')[-1]}: {summary}")
    if word not in ("OK", "SKIP"):
        print(f"{word}, exit status {test['returncode']}", output[-6000:], test.get("stderr", "")[-6000:], sep="\n")
print("   slowest:", ", ".join(f"{name} {seconds:.0f} s" for seconds, name in sorted(durations, reverse=True)[:6]))
print(passed, failed, skipped)
