"""
The programs, as they stand in ``programs/*.txt``.

::

    === name of the program | measure: home | needs: numpy, pandas | python: 3.12
    the text of the program
    --- settings.py
    the text of a file beside it
    --- resident/package/module.py
    a file that servers elsewhere have on their sys.path already; its name is of no other program

``measure`` is ``fork`` unless it says otherwise: what a forked ``ProcessPoolExecutor`` shows is
right, and where that refuses, what the program shows at home. ``measure: home`` is for what README
promises beyond fork. ``also: text`` is right as well, where README's table says so; it may be given
more than once. ``refuses: name`` says that a refusal must name that; without it, anything that the
program binds will do. A refusal is right if fork refuses, too, or if pickle refuses the global that
it names. ``missing: name`` lets a program end with a RemoteModuleNotFound of that module. The
program is preceded by a line that imports what ``oracle`` has.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

__all__ = ["Program", "read_programs"]

FOLDER = Path(__file__).parent / "programs"
PRELUDE = "from oracle import executor, outcome, run, show, showing_errors\n"


@dataclass
class Program:
    """
    A program of the oracle.

    Attributes:
        kind: The file that it stands in, such as "a_identity".
        name: Its own name.
        text: The program.
        files: Files beside it, by path.
        resident: Files that servers elsewhere have, by path.
        measure: "fork" or "home".
        needs: Libraries without which it cannot run.
        python: The first version of Python that can run it.
        refuses: What a refusal must name; empty if any name of the program will do.
        missing: The module of which a server may say that it is not there.
        also: Other texts of all that is shown, which are right as well.
    """

    kind: str
    name: str
    text: str = ""
    files: dict[str, str] = field(default_factory=dict)
    resident: dict[str, str] = field(default_factory=dict)
    measure: str = "fork"
    needs: tuple[str, ...] = ()
    python: tuple[int, int] = (3, 10)
    refuses: str = ""
    missing: str = ""
    also: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Kind and name, as in lists and on the command line."""
        return f"{self.kind}:{self.name}"

    @cached_property
    def own_names(self) -> frozenset[str]:
        """All names that the program and its files bind."""
        found: set[str] = set()
        for text in (self.text, *self.files.values()):
            try:
                tree = ast.parse(text)
            except SyntaxError:  # of a later Python
                found.update(re.findall(r"\b(?:def|class|type) (\w+)|^(\w+) =", text, re.M)[0])
                continue
            for node in ast.walk(tree):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                    found.add(node.name)
                elif isinstance(node, (ast.Name, ast.Attribute)):
                    if isinstance(node.ctx, ast.Store):
                        found.add(node.id if isinstance(node, ast.Name) else node.attr)
                elif isinstance(node, ast.alias):
                    found.add((node.asname or node.name).partition(".")[0])
                elif isinstance(node, ast.arg):
                    found.add(node.arg)
        found.update(Path(path).stem for path in self.files)
        return frozenset(found - {"self", "cls", "executor", "run", "show", "f", "x"})

    def named_in(self, text: str) -> bool:
        """Tell whether a refusal names what cannot travel."""
        words = set(re.findall(r"[\w.]+", text))
        words |= {part for word in words for part in word.split(".")}
        if self.refuses:
            return self.refuses in words
        return bool(words & (self.own_names | {"lambda"}))


def read_programs(folder: Path = FOLDER) -> list[Program]:
    """
    Read all programs.

    Raises:
        ValueError: If two have one name, or a header says what is not known.
    """
    found: dict[str, Program] = {}
    for path in sorted(folder.glob("*.txt")):
        for each in _read_file(path):
            if each.id in found:
                raise ValueError(f"two programs are called {each.id}")
            found[each.id] = each
    return list(found.values())


def _read_file(path: Path) -> list[Program]:
    programs = []
    for block in re.split(r"^=== ", path.read_text(encoding="utf-8"), flags=re.M)[1:]:
        header, _, rest = block.partition("\n")
        name, *options = (part.strip() for part in header.split("|"))
        text, *files = re.split(r"^--- ", rest, flags=re.M)
        future, text = re.match(
            r"(from __future__ [^\n]*\n|)(.*)", text.strip("\n") + "\n", re.S
        ).groups()
        program = Program(path.stem, name, future + PRELUDE + text)
        for each in files:
            file, _, content = each.partition("\n")
            content = content.strip("\n") + "\n"
            if file.startswith("resident/"):
                program.resident[file.partition("/")[2]] = content
            else:
                program.files[file] = content
        for option in options:
            key, _, value = (part.strip() for part in option.partition(":"))
            if key == "measure" and value in ("fork", "home"):
                program.measure = value
            elif key == "needs":
                program.needs = tuple(part.strip() for part in value.split(","))
            elif key == "python":
                major, minor = map(int, value.split("."))
                program.python = major, minor
            elif key == "refuses":
                program.refuses = value
            elif key == "missing":
                program.missing = value
            elif key == "also":
                program.also.append(value)
            else:
                raise ValueError(f"{path.name}: {name}: {option!r} says nothing")
        programs.append(program)
    return programs
