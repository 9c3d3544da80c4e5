"""Reference pages out of the sources: public headers and Python docstrings as Markdown, nothing written twice."""
import ast
import re

SECTION = re.compile(r"/\* ---- (.*?) -+ \*/")


def plain(comment):
    """The words of a /* comment */."""
    lines = re.sub(r"^/\*+|\*/$", "", comment.strip()).splitlines()
    lines = [re.sub(r"^\s*\* ?", "", line).rstrip() for line in lines]
    return "\n".join(line for line in lines).strip()


def paragraphs(text):
    """(comment or "", declarations) of every block between blank lines, comments of several paragraphs kept whole."""
    block, inside = [], False
    for line in text.splitlines() + [""]:
        if line.strip() or inside:
            block.append(line)
            inside = (inside or line.lstrip().startswith("/*")) and "*/" not in line
        elif block:
            whole = "\n".join(block)
            block = []
            leading = re.match(r"\s*/\*.*?\*/", whole, re.S)
            yield (plain(leading[0]), whole[leading.end() :].strip("\n")) if leading else ("", whole)


def words(comment):
    """A comment as Markdown: a list wants an empty line before it, and only indented code keeps its < as they are."""
    lines = []
    for line in comment.splitlines():
        item = re.match(r" ?- ", line)
        if item and lines and lines[-1].strip() and not re.match(r" ?- |   ", lines[-1]):
            lines.append("")
        lines.append(line if line.startswith("    ") else (line.lstrip() if item else line).replace("<", "&lt;"))
    return "\n".join(lines)


def functions(code):
    return re.findall(r"LH_API[^;]*?\b(lh_\w+)\(", code)


def header(folder):
    """Every public header: sections, comments as text, declarations as code, a heading for each function."""
    page = ["# C interface", "", "Generated from the public headers, which stay the last word."]
    for file in sorted(folder.glob("*.h")):
        text = file.read_text()
        page += ["", f"## {file.name}"]
        for comment, code in paragraphs(text):
            section = SECTION.match(code) or SECTION.match(f"/* {comment} */")
            if section:
                page += ["", f"### {section[1]}"]
                code = code.replace(section[0], "").strip("\n") if SECTION.match(code) else code
                comment = ""
            code = "\n".join(line for line in code.splitlines() if not re.match(r"#|__extension__|extern \"C\"|}$|\{$", line))
            for name in functions(code):
                page += ["", f"#### `{name}`"]
            if comment:
                page += ["", words(comment)]
            if code.strip():
                page += ["", "```c", code, "```"]
    return "\n".join(page) + "\n"


def signature(node):
    return f"{node.name}({ast.unparse(node.args)})"


def public(tree):
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_") and ast.get_docstring(node):
            yield node


def exported(tree):
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    return []


def describe(node):
    """A function or class with its signature, docstring, fields and public methods."""
    if isinstance(node, ast.FunctionDef):
        return ["", f"### `{node.name}`", "", "```python", signature(node), "```", "", ast.get_docstring(node)]
    page = ["", f"### class `{node.name}`", "", ast.get_docstring(node)]
    fields = [ast.unparse(x) for x in node.body if isinstance(x, ast.AnnAssign)]
    if fields:
        page += ["", "```python", *fields, "```"]
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_") and ast.get_docstring(method):
            page += ["", f"#### `{node.name}.{method.name}`", "", "```python", signature(method), "```", "", ast.get_docstring(method)]
    return page


def package(folder):
    """What every package of the tree exports, by package, from whichever module defines it."""
    page = ["# Python interface", "", "Generated from the docstrings of `python/lighthouse`."]
    for init in sorted(folder.rglob("__init__.py")):
        tree = ast.parse(init.read_text())
        name = ".".join(("lighthouse", *init.parent.relative_to(folder).parts))
        nodes = {}
        for file in [init, *sorted(init.parent.glob("*.py"))]:
            nodes.update({node.name: node for node in public(ast.parse(file.read_text()))})
        page += ["", f"## {name}", "", ast.get_docstring(tree) or ""]
        for wanted in exported(tree):
            if wanted in nodes:
                page += describe(nodes[wanted])
    return "\n".join(page) + "\n"
