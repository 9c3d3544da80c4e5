"""Writes OpenCL C files as one C file: embed.py OUT.c A.cl B.cl ... defines lh_cl_source_A, lh_cl_source_B."""
import pathlib
import sys

with open(sys.argv[1], "w") as out:
    out.write("/* Made by opencl/embed.py. */\n")
    for path in map(pathlib.Path, sys.argv[2:]):
        data = path.read_bytes() + b"\0"
        out.write(f"extern const char lh_cl_source_{path.stem}[];\n")
        out.write(f"const char lh_cl_source_{path.stem}[] = {{\n")
        for i in range(0, len(data), 20):
            out.write(" ".join(f"{byte}," for byte in data[i : i + 20]) + "\n")
        out.write("};\n")
