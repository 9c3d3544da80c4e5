#!/usr/bin/env python3
"""Derives data/upstream from a folder of the original implementation's full traces.

    data/prune-upstream.py FOLDER

u01 and u05 keep the whole trace; the others keep q k v, the scores and the index, what comes out, and (where it
teaches something that another file does not) dout and the gradients. Under 8 MiB together. Same input, same
bytes.
"""
import json
import pathlib
import struct
import sys

WHOLE = {"u01", "u05"}
FORWARD_ONLY = {"u03", "u06", "u07", "u10"}
FORWARD = {"q", "k", "v", "score_q", "score_k", "index", "out"}
BACKWARD = {"dout", "dq", "dk", "dv"}


def kept(name, tensor):
    if name in WHOLE:
        return True
    return tensor in FORWARD or (tensor in BACKWARD and name not in FORWARD_ONLY)


def prune(source, target):
    data = source.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    metadata = dict(sorted(header.pop("__metadata__").items()))
    out, body = {"__metadata__": metadata}, b""
    for tensor, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if kept(source.stem, tensor):
            begin, end = entry["data_offsets"]
            out[tensor] = {**entry, "data_offsets": [len(body), len(body) + end - begin]}
            body += data[8 + size + begin : 8 + size + end]
    text = json.dumps(out, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    target.write_bytes(struct.pack("<Q", len(text)) + text + body)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: data/prune-upstream.py FOLDER")
    target = pathlib.Path(__file__).parent / "upstream"
    target.mkdir(exist_ok=True)
    for source in sorted(pathlib.Path(sys.argv[1]).glob("u*.safetensors")):
        prune(source, target / source.name)


if __name__ == "__main__":
    main()
