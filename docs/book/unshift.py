#!/usr/bin/env python3
"""What a port that forgot the scatter's shift would dump: unshift.py IN.safetensors OUT.safetensors.

Rewrites `out` and `coverage` of a float64 trace: entry i of level l is added to the tokens of its own window instead of the
positions behind it (SPEC 8, fault 1). Nothing but the standard library.
"""
import json
import struct
import sys

FORMATS = {"F64": "d", "I32": "i", "I64": "q"}


def main(source, target):
    data = bytearray(open(source, "rb").read())
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + size])
    meta = header["__metadata__"]

    def place(name):
        entry = header[name]
        count = (entry["data_offsets"][1] - entry["data_offsets"][0]) // struct.calcsize(FORMATS[entry["dtype"]])
        return entry["shape"], f"<{count}{FORMATS[entry['dtype']]}", 8 + size + entry["data_offsets"][0]

    def read(name):
        shape, form, at = place(name)
        return shape, struct.unpack_from(form, data, at)

    (b, h, n, d), out = read("out")
    (_, _, s), index = read("index")
    o_sel, levels, p = read("o_sel")[1], int(meta["levels"]), int(meta["pool"])
    offset = [sum(n // p**j for j in range(l)) for l in range(levels + 1)]
    out, coverage = [0.0] * len(out), [0] * (b * h * n)
    for row in range(b * h):
        for slot in range(s):
            entry = index[row * s + slot]
            level = max(l for l in range(levels) if offset[l] <= entry)
            first = (entry - offset[level]) * p**level
            for j in range(first, first + p**level):
                coverage[row * n + j] += 1
                for c in range(d):
                    out[(row * n + j) * d + c] += o_sel[(row * s + slot) * d + c]
    for name, values in (("out", out), ("coverage", coverage)):
        _, form, at = place(name)
        struct.pack_into(form, data, at, *values)
    open(target, "wb").write(data)


if __name__ == "__main__":
    main(*sys.argv[1:])
