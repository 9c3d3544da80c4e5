"""`python -m lighthouse COMMAND ...`, and `lighthouse` of the wheel: the program inside, and `export` written in Python."""
import os
import shutil
import sys


def main():
    if sys.argv[1:2] == ["export"]:
        from . import export

        sys.exit(export.main(sys.argv[2:]))
    here = os.path.dirname(os.path.abspath(__file__))
    program = os.path.join(here, "bin", "lighthouse")
    if os.path.exists(program):
        os.environ.setdefault("LIGHTHOUSE_DATA", os.path.join(here, "data"))
    else:
        program = shutil.which("lighthouse")
        if program is None:
            print("lighthouse: the program was not found, wanted it on the PATH (meson install) or in a wheel", file=sys.stderr)
            sys.exit(2)
        if open(program, "rb").read(2) == b"#!":  # ourselves
            print("lighthouse: this package holds no program, wanted one built by meson-python", file=sys.stderr)
            sys.exit(2)
    os.execv(program, ["lighthouse", *sys.argv[1:]])


if __name__ == "__main__":
    main()
