#!/usr/bin/env python3
"""manifest_schema.py DATA: the manifest fits its schema, its files hold what it says, and they are small enough."""
import hashlib
import json
import pathlib
import struct
import sys

try:
    import jsonschema
except ImportError:
    print("SKIP: jsonschema is not installed (Debian: python3-jsonschema)")
    sys.exit(77)

FILE_LIMIT, TOTAL_LIMIT = 4 << 20, 8 << 20


def hashes(path):
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    header.pop("__metadata__", None)
    return {name: hashlib.sha256(body[slice(*t["data_offsets"])]).hexdigest() for name, t in header.items()}


def refuses(schema, manifest):
    """A schema that takes everything would pass every test: break the manifest in four ways."""
    for spoil in (
        lambda m: m["cases"][0].pop("why"),
        lambda m: m["cases"][0]["exposes"].append(27),
        lambda m: m["cases"][0]["trace"].update(q="0" * 63),
        lambda m: m["invalid"][0].update(error=""),
    ):
        broken = json.loads(json.dumps(manifest))
        spoil(broken)
        try:
            jsonschema.validate(broken, schema)
        except jsonschema.ValidationError:
            continue
        return False
    return True


def main():
    data = pathlib.Path(sys.argv[1])
    schema = json.loads((data / "manifest.schema.json").read_text())
    manifest = json.loads((data / "manifest.json").read_text())
    jsonschema.validate(manifest, schema)
    if not refuses(schema, manifest):
        sys.exit("the schema takes a broken manifest")
    files = {case["file"]["path"]: case["file"]["tensors"] for case in manifest["cases"] if "file" in case}
    on_disk = {str(p.relative_to(data)) for p in (data / "upstream").iterdir()}
    if on_disk != set(files):
        sys.exit(f"files {sorted(on_disk ^ set(files))} are in data/upstream or in the manifest, wanted both")
    for path, wanted in files.items():
        if hashes(data / path) != wanted:
            sys.exit(f"{path}: tensors are not those of the manifest")
    sizes = [(data / path).stat().st_size for path in files]
    if max(sizes) > FILE_LIMIT or sum(sizes) > TOTAL_LIMIT:
        sys.exit(f"files of {max(sizes)} and together {sum(sizes)} bytes, wanted {FILE_LIMIT} and {TOTAL_LIMIT}")
    print(f"{len(manifest['cases'])} cases, {len(manifest['invalid'])} invalid ones, {len(files)} files, {sum(sizes)} bytes")


if __name__ == "__main__":
    main()
