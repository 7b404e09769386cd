"""The project's files, as the house checks read them: nothing of the project is imported here."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["PACKAGE", "ROOT", "Import", "imports", "modules", "project_files", "tree"]

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "remote_executor"
_NOT_OURS = {
    ".git",
    ".nox",
    ".hypothesis",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "__pycache__",
    "build",
    "dist",
}


class Import(NamedTuple):
    """One module that another one imports."""

    name: str  # dotted, absolute
    line: int
    typing_only: bool  # under `if TYPE_CHECKING:`
    late: bool  # inside a function


@cache
def modules() -> dict[str, Path]:
    """Return the dotted name and the path of every module of the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        found[".".join(parts)] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_bytes(), str(path))


@cache
def imports(name: str) -> tuple[Import, ...]:
    """Return all that a module of the package imports, wherever in it."""
    path = modules()[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    visitor = _Visitor(package)
    visitor.visit(tree(path))
    return tuple(visitor.found)


@cache
def project_files() -> tuple[Path, ...]:
    """Return every file that belongs to the project: those git has or would take."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout.decode()
        paths = [ROOT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive, or no git
        paths = [p for p in ROOT.rglob("*") if not _skipped(p.relative_to(ROOT).parts)]
    return tuple(sorted({path for path in paths if path.is_file()}))


def _skipped(parts: tuple[str, ...]) -> bool:
    return any(part in _NOT_OURS or part.startswith(".venv") for part in parts)


class _Visitor(ast.NodeVisitor):
    def __init__(self, package: str) -> None:
        self.package = package
        self.found: list[Import] = []
        self._typing_only = False
        self._late = False

    def visit_If(self, node: ast.If) -> None:
        test = ast.unparse(node.test)
        if test in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            before, self._typing_only = self._typing_only, True
            for child in node.body:
                self.visit(child)
            self._typing_only = before
            for child in node.orelse:
                self.visit(child)
        else:
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before, self._late = self._late, True
        self.generic_visit(node)
        self._late = before

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]
    visit_Lambda = visit_FunctionDef  # type: ignore[assignment]

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            parts = self.package.split(".")
            parents = parts[: len(parts) - (node.level - 1)]
            base = ".".join([*parents, base] if base else parents)
        for alias in node.names:
            # `from package import module` names a module, `from module import name` does not.
            whole = f"{base}.{alias.name}"
            self._add(whole if whole in modules() else base, node)

    def visit_Call(self, node: ast.Call) -> None:
        if (
            ast.unparse(node.func) in ("__import__", "import_module", "importlib.import_module")
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, str)
        ):
            self._add(node.args[0].value, node)
        self.generic_visit(node)

    def _add(self, name: str, node: ast.stmt | ast.expr) -> None:
        self.found.append(Import(name, node.lineno, self._typing_only, self._late))
