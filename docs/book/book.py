#!/usr/bin/env python3
"""The book: runs what its chapters say and puts what came out into them.

    book.py --check  --lighthouse PROGRAM [CHAPTER.md ...]       every command, picture and answer of the chapters
    book.py --stage FOLDER --lighthouse PROGRAM [--page PAGE.html]   all of docs/, chapters filled in, for mkdocs

A chapter is Markdown with four kinds of fenced blocks of its own:

    ```run          commands; they are shown with what they print
    ```picture ALT  one `lighthouse explain` command; its SVG is shown
    ```ref FILE NAME    function NAME of ref/FILE with the comment above it, as it stands
    ```exercise     a question; "$ " commands ("> " goes on) with "= " lines they must print; an explanation

Commands run in a scratch folder in which the source's folders can be seen. A command that fails, an answer that differs, or
a function that is not there fails the build.
"""
import argparse
import html
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

here = pathlib.Path(__file__).resolve().parent
root = here.parent.parent
BLOCK = re.compile(r"^```(run|picture|ref|exercise)([^\n]*)\n(.*?)^```$", re.M | re.S)


class Wrong(Exception):
    pass


class Book:
    def __init__(self, lighthouse, pictures):
        self.scratch = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.scratch.name)
        self.pictures, self.count = pictures, 0
        (self.folder / "bin").mkdir()
        (self.folder / "bin" / "lighthouse").symlink_to(pathlib.Path(lighthouse).resolve())
        for name in ("train", "docs", "examples", "data"):
            (self.folder / name).symlink_to(root / name)
        self.environment = {**os.environ, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}

    def run(self, command):
        self.count += 1
        done = subprocess.run(["sh", "-c", command], cwd=self.folder, env=self.environment, text=True, timeout=300,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode != 0:
            raise Wrong(f"{command}: exit status {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def fill(self, text, name):
        """A chapter with its blocks replaced."""
        self.name, self.shown = name, 0
        return BLOCK.sub(lambda m: getattr(self, "do_" + m[1])(m[2].strip(), m[3]), text)

    def do_run(self, _, body):
        commands, shown = [], []
        for line in body.splitlines():  # a quote that is open goes on in the next line
            if commands and (commands[-1].count('"') % 2 or commands[-1].count("'") % 2):
                commands[-1] += "\n" + line
            else:
                commands.append(line)
        for command in commands:
            shown += ["$ " + command.replace("\n", "\n> "), self.run(command).rstrip("\n")]
        return "```text\n" + "\n".join(line for line in shown if line) + "\n```"

    def do_picture(self, alt, body):
        self.shown += 1
        file = f"{pathlib.Path(self.name).stem}-{self.shown}.svg"
        command = body.strip()
        self.run(f"{command} --svg {file}")
        if self.pictures:
            shutil.copy(self.folder / file, self.pictures / file)
        width = float(re.search(r'width="(\d+)"', (self.folder / file).read_text())[1])
        return (f'<figure class="picture"><img src="pictures/{file}" alt="{html.escape(alt)}" style="min-width:{0.8 * width:.0f}px">'
                f"<figcaption>{html.escape(alt)} <code>{html.escape(command)}</code></figcaption></figure>")

    def do_ref(self, words, _):
        file, name = words.split()
        return f"`ref/{file}`:\n\n```c\n{function(file, name)}\n```\n"

    def do_exercise(self, _, body):
        question, steps, explanation = [], [], []
        for line in body.splitlines():
            if line.startswith("$ "):
                steps.append([line[2:], []])
            elif line.startswith("> "):
                steps[-1][0] += "\n" + line[2:]
            elif line.startswith("= "):
                steps[-1][1].append(line[2:])
            else:
                (explanation if steps else question).append(line)
        if not steps:
            raise Wrong(f"exercise without an answer: {' '.join(question)}")
        shown = []
        for command, wanted in steps:
            found = self.run(command).rstrip("\n").split("\n")
            if found != wanted:
                raise Wrong(f"{command}: printed {found}, the answer is {wanted}")
            shown += ["$ " + command.replace("\n", "\n> ")] + found
        return ("**Exercise.** " + "\n".join(question) + "\n\n<details markdown><summary>Answer</summary>\n\n```text\n" +
                "\n".join(shown) + "\n```\n\n" + "\n".join(explanation) + "\n\n</details>")


def function(file, name):
    """The definition of a function of ref/ with the comment right above it."""
    lines = (root / "ref" / file).read_text().splitlines()
    for start, line in enumerate(lines):
        if re.match(rf"[a-z].*\b{name}\(", line) and not line.endswith(";"):
            end = start
            while lines[end] != "{" and not lines[end].endswith(";"):
                end += 1
            if lines[end].endswith(";"):
                continue  # a prototype
            while lines[end] != "}":
                end += 1
            if start and lines[start - 1].endswith("*/"):
                start -= 1
                while not lines[start].startswith("/*"):
                    start -= 1
            return "\n".join(lines[start : end + 1])
    raise Wrong(f"ref/{file} has no function {name}")


def check(arguments):
    chapters = [pathlib.Path(c) for c in arguments.chapters] or sorted(here.glob("[0-9]*.md"))
    failed = 0
    for chapter in chapters:
        book = Book(arguments.lighthouse, None)
        try:
            text = chapter.read_text()
            kinds = [m[1] for m in BLOCK.finditer(text)]
            for kind in ("picture", "ref", "exercise"):
                if kind not in kinds:
                    raise Wrong(f"no {kind}: a chapter has a picture, lines of ref/ and an exercise")
            if "```text" not in text or "**Try.**" not in text and "**Live.**" not in text:
                raise Wrong("no equation or nothing to try")
            book.fill(text, chapter.name)
            print(f"{chapter.name}: {book.count} commands, {kinds.count('picture')} pictures, {kinds.count('exercise')} exercises")
        except Wrong as wrong:
            print(f"{chapter.name}: {wrong}")
            failed += 1
    return failed != 0


def relative(text):
    """Links out of docs/ lead to pages of the site."""
    for name in ("exercises", "python"):
        text = text.replace(f"](../{name}/README.md)", f"]({name}.md)")
    return text


def stage(arguments):
    import api

    target = pathlib.Path(arguments.stage)
    shutil.rmtree(target, ignore_errors=True)
    docs = target / "docs"
    (docs / "book" / "pictures").mkdir(parents=True)
    book = Book(arguments.lighthouse, docs / "book" / "pictures")
    for file in sorted(root.glob("docs/*.md")):
        (docs / file.name).write_text(relative(file.read_text()))
    for file in root.glob("docs/*.svg"):
        shutil.copy(file, docs / file.name)
    for chapter in sorted(here.glob("[0-9]*.md")):
        (docs / "book" / chapter.name).write_text(book.fill(relative(chapter.read_text()), chapter.name))
    for name in ("exercises", "python"):
        (docs / f"{name}.md").write_text((root / name / "README.md").read_text().replace("](../docs/", "]("))
    (docs / "api-c.md").write_text(api.header(root / "include"))
    (docs / "api-python.md").write_text(api.package(root / "python" / "lighthouse"))
    shutil.copy(here / "site.css", docs / "site.css")
    if arguments.page:
        shutil.copy(arguments.page, docs / "lighthouse.html")
        with open(docs / "play.md", "a") as play:
            play.write('\n[Open it on its own](lighthouse.html){ target=_blank }\n\n'
                       '<iframe src="lighthouse.html" title="page to play with" class="play"></iframe>\n')
    with open(docs / "api.md", "a") as index:
        index.write("\n- [C interface](api-c.md)\n- [Python interface](api-python.md)\n")
    (target / "mkdocs.yml").write_text((here / "mkdocs.yml").read_text() + navigation(docs))
    print(f"{book.count} commands, {len(list((docs / 'book' / 'pictures').iterdir()))} pictures")


def title(file):
    return next(line[2:] for line in file.read_text().splitlines() if line.startswith("# "))


def navigation(docs):
    """The reading order; what docs/ has besides comes last."""
    groups = {
        "Play": ["play.md"],
        "The book": [f"book/{file.name}" for file in sorted((docs / "book").glob("*.md"))],
        "Write it yourself": ["exercises.md"],
        "Port it": ["algorithm.md", "spec.md", "porting.md", "verification.md", "faults.md", "upstream.md"],
        "Run it": ["python.md", "performance.md", "performance-cuda.md", "opencl.md", "pretraining.md"],
        "Reference": ["api.md", "api-c.md", "api-python.md"],
        "Numbers": ["numerics.md", "numerics-openmp.md"],
    }
    named = {name for names in groups.values() for name in names} | {"index.md"}
    groups["More"] = sorted(file.name for file in docs.glob("*.md") if file.name not in named)
    lines = ["nav:", "  - index.md"]
    for group, names in groups.items():
        names = [name for name in names if (docs / name).exists()]
        if names:
            lines.append(f"  - {group}:")
            lines += [f"      - {quote(title(docs / name))}: {name}" for name in names]
    return "\n".join(lines) + "\n"


def quote(text):
    return '"' + text.replace('"', "'") + '"'


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--stage")
    parser.add_argument("--lighthouse", required=True)
    parser.add_argument("--page")
    parser.add_argument("chapters", nargs="*")
    given = parser.parse_args()
    try:
        sys.exit(check(given) if given.check else stage(given))
    except Wrong as wrong:
        sys.exit(f"book.py: {wrong}")
