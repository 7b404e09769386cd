"""
Which module a global of ``__main__`` was imported from.

``from settings import lock`` binds a name of ``__main__`` to what belongs to the module. A worker
imports such a thing, as its own module's, and never gets a copy of the client's. It is found as
that module's attribute by identity. Where the text of the program can be read, it says which module
is meant; and what the program made itself, and only put into a module, stays its own.
"""

from __future__ import annotations

import ast
import functools
import linecache
import os
import sys
from collections import deque
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NamedTuple

from remote_executor.payload.code.names import is_atom

__all__ = ["find_origin", "is_importable", "loaded_inside", "module_of_globals"]

_OURS = "remote_executor"


class _Bound(NamedTuple):
    """
    What the text of a program says of its names.

    Attributes:
        imported: Module and attribute, by name, of ``from module import attribute as name``.
        own: Names that it binds to what it makes: by ``def``, ``class``, or to a call or display.
        stars: Modules of which all names are imported.
        put: Attributes that it sets somewhere.
    """

    imported: dict[str, tuple[str, str]]
    own: frozenset[str]
    stars: tuple[str, ...]
    put: frozenset[str]


@functools.lru_cache(8)
def _bound_by(text: str, package: str) -> _Bound | None:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    imported: dict[str, tuple[str, str]] = {}
    own: set[str] = set()
    stars: list[str] = []
    put: set[str] = set()
    # Nearly all nodes are in expressions, which bind nothing but by a walrus.
    for node in ast.walk(tree) if ":=" in text else _bindings(tree):
        if isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            for alias in node.names:
                if alias.name == "*":
                    stars.append(base)
                else:
                    imported[alias.asname or alias.name] = base, alias.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            put.add(node.attr)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            own.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and not isinstance(
            node.value, (ast.Name, ast.Attribute, type(None))
        ):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                own.update(each.id for each in ast.walk(target) if isinstance(each, ast.Name))
    return _Bound(imported, frozenset(own), tuple(stars), frozenset(put))


def _bindings(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements of a program, the outer ones first, and what is in their targets."""
    todo = deque([tree])
    while todo:
        node = todo.popleft()
        yield node
        for field in _BODIES:
            todo.extend(getattr(node, field, ()))
        for target in (*getattr(node, "targets", ()), *_targets(node)):
            yield from ast.walk(target)


_BODIES = ("body", "handlers", "orelse", "finalbody", "cases")


def _targets(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, (ast.With, ast.AsyncWith)):
        yield from (each.optional_vars for each in node.items if each.optional_vars is not None)
    else:
        target = getattr(node, "target", None)
        if target is not None:
            yield target


def _absolute(node: ast.ImportFrom, package: str) -> str:
    base = node.module or ""
    if node.level:
        parts = package.split(".") if package else []
        above = parts[: len(parts) - node.level + 1]
        base = ".".join([*above, base] if base else above)
    return base


_text: list[Any] = []


def _text_of(space: dict[str, Any]) -> str:
    file = space.get("__file__")
    if isinstance(file, str):
        lines = linecache.getlines(file, space)
        if not _text or _text[0] is not lines:  # for each of some hundred names it is the same
            _text[:] = lines, "".join(lines)
        return str(_text[1])
    given = sys.orig_argv
    return given[given.index("-c") + 1] if "-c" in given[:-1] else ""


def is_importable(name: object) -> bool:
    """Tell a module that others can import by its name from those made by hand."""
    module = sys.modules.get(name) if isinstance(name, str) else None
    if module is None or name in ("__main__", "__mp_main__", "builtins"):
        return False
    return getattr(module, "__spec__", None) is not None


def loaded_inside(module: ModuleType) -> tuple[str, ...]:
    """Return the names of what is loaded of a package of the user's, and is found in it."""
    if not hasattr(module, "__path__") or module.__name__ in ("__main__", _OURS):
        return ()
    from remote_executor.payload.modules import users_own_file

    if users_own_file(module) is None:
        return ()
    prefix = module.__name__ + "."
    return tuple(name for name in list(sys.modules) if name.startswith(prefix))


def module_of_globals(space: dict[str, Any]) -> ModuleType | None:
    """Return the importable module whose globals these are; None if there is none."""
    name = space.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    if module is None or module.__dict__ is not space or name in ("__main__", "__mp_main__"):
        return None
    return module


def find_origin(name: str, value: object, space: dict[str, Any]) -> tuple[str, str] | None:
    """
    Find the module that a global came from.

    Args:
        name: The global.
        value: What it is bound to: neither code that goes by its own name, nor a module.
        space: The globals of ``__main__``.

    Returns:
        The module's name and the attribute; None if it is the program's own.
    """
    if is_atom(value) or isinstance(value, (ModuleType, type)):
        return None
    if isinstance(value, FunctionType) and value.__globals__ is space:
        return None
    text = _text_of(space)
    bound = _bound_by(text, str(space.get("__package__") or "")) if text else None
    if bound is not None:
        said = bound.imported.get(name)
        if said is not None and _has(*said, value):
            return said
        for module in bound.stars:
            if _has(module, name, value):
                return module, name
        if name in bound.own:
            return None
    found = _of_same_name(name, value) or _of_any_name(value)
    if found is not None and bound is not None and found[1] in bound.put:
        return None  # the program put it there
    return found


def _has(module: str, name: str, value: object) -> bool:
    # Not getattr(), which may run a module's own code.
    found = sys.modules.get(module)
    if found is None or not is_importable(module):
        return False
    own = vars(found).get(name)
    if own is None and "__getattr__" in vars(found):
        own = getattr(found, name, None)
    return own is value


def _of_same_name(name: str, value: object) -> tuple[str, str] | None:
    found = [
        module
        for module, loaded in list(sys.modules.items())
        if _vars(loaded).get(name) is value and is_importable(module)
    ]
    return (_best(found, value), name) if found else None


def _vars(module: object) -> dict[str, Any]:
    return vars(module) if isinstance(module, ModuleType) else {}


def _best(modules: list[str], value: object) -> str:
    """Of several that have it, choose the one that is likeliest to have made it."""
    home = getattr(value, "__module__", None) or type(value).__module__
    if home in modules:
        return str(home)
    return min(modules, key=lambda name: (name.startswith(_OURS), name.count("."), len(name)))


_by_id: dict[int, tuple[str, str]] = {}
_loaded = 0


def _of_any_name(value: object) -> tuple[str, str] | None:
    """Find it under another name, in all that is loaded."""
    global _loaded
    modules = list(sys.modules.items())
    if len(modules) != _loaded:
        _by_id.clear()
        for name, module in modules:
            if is_importable(name):
                for attribute, each in list(_vars(module).items()):
                    if not attribute.startswith("__") and not is_atom(each):
                        _by_id.setdefault(id(each), (name, attribute))
        _loaded = len(modules)
    found = _by_id.get(id(value))
    return found if found is not None and _has(*found, value) else None


def origin_of_method(value: BuiltinFunctionType) -> tuple[str, str] | None:
    """Find where a built-in method belongs that a module has: ``random.random``."""
    if isinstance(value.__self__, (ModuleType, type, type(None))):
        return None
    return _of_same_name(value.__name__, value)


def is_environment(value: object) -> bool:
    """Tell the environment of this process, which never travels."""
    return value is os.environ or value is getattr(os, "environb", None)
