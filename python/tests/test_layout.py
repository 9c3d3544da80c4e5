"""The structs of _library.py are those of the header, field by field; needs the header beside the package."""
import pathlib
import re

import pytest

from lighthouse import _library

HEADER = pathlib.Path(__file__).parents[2] / "include" / "lighthouse.h"
SIMPLE = {"c_bool": "bool", "c_int": "int", "c_long": "int64_t", "c_longlong": "int64_t", "c_ulong": "size_t", "c_char_p": "pointer",
          "c_void_p": "pointer"}
STRUCTS = {"Error": "lh_error", "Config": "lh_config", "Tensor": "lh_tensor", "Options": "lh_options"}
pytestmark = pytest.mark.skipif(not HEADER.exists(), reason="the header is not here")


def without_comments():
    return re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)


def fields(name):
    """[(field, type, length)]; enums count as int."""
    text = without_comments()
    enums = set(re.findall(r"typedef enum (\w+)", text))
    body = re.search(r"typedef struct " + name + r" \{(.*?)\} " + name + ";", text, re.S).group(1)
    found = []
    for line in filter(None, (part.strip() for part in body.split(";"))):
        kind, stars, field, length = re.fullmatch(r"((?:const )?(?:struct )?\w+)\s+(\**)(\w+)(?:\[(\w+)\])?", line).groups()
        found.append((field, "pointer" if stars else "int" if kind in enums else kind, length))
    return found


def own(struct):
    for name, kind in struct._fields_:
        length = getattr(kind, "_length_", None)
        kind = kind._type_ if length else kind
        if kind.__name__ == "c_char":
            yield name, "char", length
        else:
            yield name, SIMPLE[kind.__name__], length


@pytest.mark.parametrize("name", STRUCTS)
def test_struct(name):
    text = without_comments()
    wanted = []
    for field, kind, length in fields(STRUCTS[name]):
        if length and not length.isdigit():
            length = re.search(r"#define " + length + r" (\d+)", text).group(1)
        wanted.append((field, kind, int(length) if length else None))
    assert list(own(getattr(_library, name))) == wanted


def test_enums_and_version():
    text = without_comments()
    listed = re.search(r"typedef enum lh_dtype \{(.*?)\}", text, re.S).group(1).split(",")
    assert tuple(x.strip()[3:] for x in listed if x.strip())[: len(_library.DTYPES)] == _library.DTYPES
    assert re.search(r'#define LH_VERSION "(.*?)"', text).group(1) == _library.VERSION


def test_structs_are_declared_once():
    """A second declaration is one that is forgotten when a field is added."""
    declared = re.compile(r"^class (\w+)\((?:\w+\.)?Structure\)", re.M)
    root = HEADER.parents[1]
    again = [
        (path.relative_to(root), name)
        for folder in ("bench", "examples", "exercises", "python", "tests")
        for path in (root / folder).rglob("*.py")
        if path.name != "_library.py"
        for name in declared.findall(path.read_text())
        if name in STRUCTS
    ]
    assert not again
