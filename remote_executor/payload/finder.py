"""
Find the source of a function or class, and make a recipe of it that is surely right.

A candidate is a piece of text at the place where the code object says that it began. It counts if
it compiles, here and now, to the very code that the function has; lines apart. So a file that was
edited since it was imported, a code object that some tool has rewritten, or a namesake on the same
line are never taken for it. Two lambdas on one line differ in their code, and if they do not, then
either text is right.

Only who sends needs this module. It is imported when the first function goes to another version of
Python, or is marked with :func:`deftask`.
"""

from __future__ import annotations
import __future__

import ast
import functools
import linecache
import sys
import weakref
from collections.abc import Callable, Iterator
from types import CellType, CodeType, FunctionType
from typing import Any, NamedTuple, TypeVar

from remote_executor.errors import CannotShip
from remote_executor.payload import source
from remote_executor.payload.code.alone import send_alone
from remote_executor.payload.code.annotations import OF_A_CLASS_BODY
from remote_executor.payload.pythons import python_words
from remote_executor.payload.source import (
    INNER,
    OUTER,
    Recipe,
    compile_recipe,
)

__all__ = ["ClassSource", "check_syntax", "class_source", "deftask", "function_recipe"]

F = TypeVar("F", bound=Callable[..., Any])

_FUTURES = 0x01FE0000
"""The bits of a code object's flags that come from ``__future__``."""

_PLACE = 0x10 | 0x8000000
"""Whether it was defined in a function, or (3.14) in a class: around a recipe that is different."""

_OPTIMIZED = 0x1
"""Functions have this flag, and bodies of classes do not."""

_AT_ONCE = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>", "__annotate__", "<annotations>")
"""Code objects that run when what is around them runs."""

Definition = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class _Place(NamedTuple):
    """A node, the class whose private names it sees, its qualified name, the functions around."""

    node: Any
    cls: str | None
    qualname: str
    around: tuple[Any, ...]


class _Unit:
    """
    A piece of source that can be parsed: a file, a cell of a notebook, or a recipe that came here.

    Args:
        text: The source.
        filename: As code objects have it.
        shift: What to add to its line numbers.
        before: The beginning of qualified names that is not the file's ...
        after: ... and what to put in its place.
    """

    def __init__(
        self, text: str, filename: str, shift: int = 0, before: str = "", after: str = ""
    ) -> None:
        self.filename = filename
        self.shift = shift
        self.lines = text.splitlines(keepends=True)
        self.by_line: dict[tuple[str, int], list[_Place]] = {}
        self.classes: dict[str, list[_Place]] = {}
        self._before = before
        self._after = after
        self._imported: dict[str, None] = {}
        self.flags = 0
        """Of ``compile``, for what it imports from ``__future__``."""
        self._walk(ast.parse(text), None, "", ())
        # From Python 3.12 on, calls of what the module imports are compiled in another way.
        self._imports = f"import {', '.join(self._imported)}\n" if self._imported else ""

    def compiled(self, recipe: Recipe) -> Iterator[CodeType]:
        """Compile a recipe as it may have been compiled here, to see whether it is right."""
        if self._imports:
            yield compile_recipe(recipe._replace(tail=recipe.tail + self._imports))
        yield compile_recipe(recipe)  # so does a notebook: each statement apart

    def _walk(self, node: ast.AST, cls: str | None, prefix: str, around: tuple[Any, ...]) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Definition):
                qualname = prefix + child.name
                if qualname == self._before:
                    qualname = self._after
                place = _Place(child, cls, qualname, around)
                if isinstance(child, ast.ClassDef):
                    self.classes.setdefault(qualname, []).append(place)
                    self._walk(child, child.name.lstrip("_") and child.name, qualname + ".", around)
                else:
                    first = min([child, *child.decorator_list], key=_line).lineno
                    self._note(child.name, first, place)
                    self._walk(child, cls, qualname + ".<locals>.", (*around, child))
            elif isinstance(child, ast.Lambda):
                self._note("<lambda>", child.lineno, _Place(child, cls, "", around))
                self._walk(child, cls, prefix + "<lambda>.<locals>.", (*around, child))
            else:
                if isinstance(child, ast.ImportFrom) and child.module == "__future__":
                    for alias in child.names:
                        feature = getattr(__future__, alias.name, None)
                        self.flags |= getattr(feature, "compiler_flag", 0)
                if isinstance(child, ast.alias) and not prefix and child.name != "*":
                    self._imported[child.asname or child.name.partition(".")[0]] = None
                self._walk(child, cls, prefix, around)

    def _note(self, name: str, line: int, place: _Place) -> None:
        self.by_line.setdefault((name, line + self.shift), []).append(place)

    def function(self, place: _Place, code: CodeType, qualname: str) -> Recipe:
        """Make the recipe of a function."""
        node = place.node
        free = sorted(set(code.co_freevars) - OF_A_CLASS_BODY if place.cls else code.co_freevars)
        path: tuple[str, ...] = ()
        before = head = ""
        decorators = getattr(node, "decorator_list", ())
        start = min([node, *decorators], key=_line).lineno
        text, indent = self._lines(node, start)
        if decorators:
            # Its code begins where they do. They do not run, so that one stands for all.
            lines = text.splitlines(keepends=True)[node.lineno - start :]
            text = "".join([f"{indent}@_\n", "\n" * (node.lineno - start - 1), *lines])
        if free or place.cls or indent or code.co_name == "<lambda>":
            head = f"def {OUTER}({', '.join(free)}):\n"
            path = (OUTER,)
            before = f"{OUTER}.<locals>."
        if place.cls:
            if place.cls not in free:
                head += f" global {place.cls}\n"  # as methods mean it that name their class
            head += f" class {place.cls}:\n"
            path = OUTER, place.cls
            before += f"{place.cls}."
        if len(indent) < len(path):
            text = self._deepen(node, text, indent, start)
            indent = " " * len(path)
        tail = ""
        if isinstance(node, ast.Lambda):
            # The spaces keep its columns, for the marks in tracebacks.
            first, *rest = self._segment(node)
            space = " " * max(0, node.col_offset - len(indent) - 1)
            text, tail = "".join([f"{indent}({space}{first}", *rest]), "\n)\n"
        return Recipe(
            filename=self.filename,
            first=start + self.shift,
            head=head,
            text=text,
            tail=tail,
            path=path,
            name=code.co_name,
            before=before and before + code.co_name,
            after=qualname if before else "",
            flags=code.co_flags & _FUTURES,
        )

    def definition(
        self, place: _Place, free: list[str], flags: int, drop: Callable[[str], bool]
    ) -> Recipe:
        """Make the recipe of a class, without the decorators that are to be dropped."""
        node = place.node
        first = min([node, *node.decorator_list], key=_line).lineno
        text, indent = self._lines(node, first)
        lines = text.splitlines(keepends=True)
        for decorator in node.decorator_list:
            if drop(_first_name(decorator)):
                for line in range(decorator.lineno, (decorator.end_lineno or 0) + 1):
                    lines[line - first] = "\n"
        text = "".join(lines)
        path: tuple[str, ...] = ()
        before = head = tail = ""
        if place.around:
            path = (INNER,)
            head = f"def {INNER}():\n"
            before = f"{INNER}.<locals>.{node.name}"
            if free:
                path = OUTER, INNER
                head = f"def {OUTER}({', '.join(free)}):\n {head}"
                before = f"{OUTER}.<locals>.{before}"
            if len(indent) < len(path):
                text = self._deepen(node, text, indent, first)
                indent = "  "
            tail = f"{indent}return {node.name}\n"
        elif indent:
            head = "if 1:\n"
        return Recipe(
            filename=self.filename,
            first=first + self.shift,
            head=head,
            text=text,
            tail=tail,
            path=path,
            name="",
            before=before,
            after=place.qualname,
            flags=flags,
        )

    def _lines(self, node: Any, first: int = 0) -> tuple[str, str]:
        """Return the lines of a node, and their indentation."""
        lines = self.lines[(first or node.lineno) - 1 : node.end_lineno]
        indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
        if isinstance(node, ast.Lambda):
            return "", " "
        if not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        return "".join(lines), indent

    def _segment(self, node: Any) -> list[str]:
        """Return the lines of an expression, without what is around it."""
        lines = self.lines[node.lineno - 1 : node.end_lineno]
        # Columns count bytes of UTF-8. The end first, for it may be the same line.
        lines[-1] = lines[-1].encode()[: node.end_col_offset].decode()
        lines[0] = lines[0].encode()[node.col_offset :].decode()
        return lines

    def _deepen(self, node: Any, text: str, indent: str, first: int = 0) -> str:
        """Indent by two spaces instead, but for lines that begin within a string."""
        within = {
            line
            for each in ast.walk(node)
            if isinstance(each, (ast.Constant, ast.JoinedStr))
            for line in range(each.lineno + 1, (each.end_lineno or 0) + 1)
        }
        start = first or node.lineno
        return "".join(
            line if start + number in within else "  " + line.removeprefix(indent)
            for number, line in enumerate(text.splitlines(keepends=True))
        )


def _first_name(expression: ast.AST) -> str:
    """Return the name that an expression such as ``registry.add(1)`` begins with, or nothing."""
    while isinstance(expression, (ast.Attribute, ast.Call, ast.Subscript)):
        expression = expression.func if isinstance(expression, ast.Call) else expression.value
    return expression.id if isinstance(expression, ast.Name) else ""


def _line(node: Any) -> int:
    line: int = node.lineno
    return line


# ------------------------------------------------------------------------- functions

#: Recipes found before. Equal code at the same place has the same text.
_found: weakref.WeakKeyDictionary[CodeType, Recipe] = weakref.WeakKeyDictionary()


def function_recipe(function: FunctionType) -> Recipe:
    """
    Find the source of a function.

    Args:
        function: One that is written in Python.

    Returns:
        What compiles to its code, here and wherever its syntax is known.

    Raises:
        CannotShip: If no source is to be had, or it is not what runs.
    """
    code = function.__code__
    recipe = _found.get(code)
    if recipe is None or recipe.filename != code.co_filename:
        recipe = _found[code] = _search(function)
    return recipe


def _search(function: FunctionType) -> Recipe:
    code = function.__code__
    qualname = getattr(code, "co_qualname", function.__qualname__)
    seen = namesakes = False
    for unit in _units(code.co_filename, function.__globals__):
        seen = True
        for place in unit.by_line.get((code.co_name, code.co_firstlineno), ()):
            namesakes = True
            recipe = unit.function(place, code, qualname)
            try:
                if any(_alike(made, code) for made in unit.compiled(recipe)):
                    return recipe
            except (SyntaxError, LookupError):
                continue
    if not seen:
        reason = f"its source is not to be had ({code.co_filename} cannot be read)"
    elif namesakes:
        reason = f"its source in {code.co_filename}, line {code.co_firstlineno}, is not what runs"
        reason += ": the file has changed since, or a tool rewrites its code"
    else:
        reason = f"its source is not in {code.co_filename}, line {code.co_firstlineno}"
    raise _cannot(f"{function.__qualname__}()", reason)


def _cannot(what: str, reason: str) -> CannotShip:
    cure = (
        "put it into a file, or into a module that the server has, give its source to "
        "deftask_source(), or give both ends the same Python"
    )
    return CannotShip(what, reason, python_words(), "", cure)


def _alike(one: CodeType, other: CodeType) -> bool:
    """Compare code objects but for where they stand."""
    ignored = _FUTURES | _PLACE
    is_class = not one.co_flags & _OPTIMIZED
    return (
        one.co_name == other.co_name
        and one.co_code == other.co_code
        and one.co_flags | ignored == other.co_flags | ignored
        and one.co_names == other.co_names
        and one.co_varnames == other.co_varnames
        and one.co_freevars == other.co_freevars
        and one.co_cellvars == other.co_cellvars
        and one.co_argcount == other.co_argcount
        and one.co_posonlyargcount == other.co_posonlyargcount
        and one.co_kwonlyargcount == other.co_kwonlyargcount
        and len(one.co_consts) == len(other.co_consts)
        and all(
            _alike_constants(this, that) or (is_class and _alike_in_class(this, that))
            for this, that in zip(one.co_consts, other.co_consts, strict=True)
        )
    )


def _alike_constants(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, CodeType):
        return _alike(one, other)
    if isinstance(one, (tuple, frozenset)):
        if isinstance(one, frozenset):
            return sorted(map(repr, one)) == sorted(map(repr, other))
        return len(one) == len(other) and all(map(_alike_constants, one, other))
    if isinstance(one, str) and ".<locals>." in one and ".<locals>." in other:
        # A qualified name, of which the beginning may have been changed by functools.wraps().
        return one.rpartition(".<locals>.")[2] == str(other).rpartition(".<locals>.")[2]
    return repr(one) == repr(other)  # which tells 0.0 from -0.0


def _alike_in_class(one: Any, other: Any) -> bool:
    """Compare ``__static_attributes__``, which come in any order from Python 3.13 on."""
    return isinstance(one, tuple) and isinstance(other, tuple) and set(one) == set(other)


# ------------------------------------------------------------------------------ units


def _units(filename: str, space: dict[str, Any]) -> Iterator[_Unit]:
    """Yield the pieces of source that code of a file may be in, the likeliest first."""
    # What was recorded, and what came here as source.
    for recipe in reversed(source.units.get(filename, [])):
        yield _unit_of_recipe(recipe)
    # What has no loader is not asked for one: Python 3.15 warns of that.
    spec_loader = getattr(space.get("__spec__"), "loader", None)
    loaded = space if spec_loader or space.get("__loader__") else None
    lines = linecache.getlines(filename, loaded) or _command(filename, space)
    before = "".join(lines)
    if lines:
        yield from _unit_of_text(before, filename)
    # It may have been read before the module was loaded anew.
    linecache.checkcache(filename)
    now = "".join(linecache.getlines(filename, loaded))
    if now and now != before:
        yield from _unit_of_text(now, filename)


@functools.lru_cache(64)
def _unit_of_recipe(recipe: Recipe) -> _Unit:
    return _Unit(recipe.whole, recipe.filename, recipe.shift, recipe.before, recipe.after)


@functools.lru_cache(32)
def _unit_of_text(text: str, filename: str) -> tuple[_Unit, ...]:
    try:
        return (_Unit(text, filename),)
    except SyntaxError:  # it is being edited
        return ()


def _texts() -> list[str]:
    """Return the names of what has source and is no file, such as cells of a notebook."""
    # In the end there is no time of change. What is not read yet has fewer parts.
    cache = linecache.cache
    return [name for name, entry in reversed(cache.items()) if len(entry) > 1 and entry[1] is None]


def _command(filename: str, space: dict[str, Any]) -> list[str]:
    """Return the text of ``python -c``, which linecache knows from Python 3.13 on."""
    if filename != "<string>" or space.get("__name__") != "__main__":
        return []
    given = sys.orig_argv
    return given[given.index("-c") + 1].splitlines(keepends=True) if "-c" in given[:-1] else []


# ---------------------------------------------------------------------------- classes


class ClassSource(NamedTuple):
    """
    How to define a class anew.

    Attributes:
        recipe: The text of its class statement.
        cells: Captured variables of the functions around it that its methods use.
        names: Globals that it names.
        at_once: Those of them, and of the captured variables, that the statement itself needs.
        span: Its first and last line.
    """

    recipe: Recipe
    cells: dict[str, CellType]
    names: tuple[str, ...]
    at_once: frozenset[str]
    span: tuple[int, int]


def class_source(
    cls: type,
    names: Callable[[CodeType], tuple[str, ...]],
    drop: Callable[[str], bool] = lambda _: False,
) -> ClassSource | None:
    """
    Find the class statement of a class.

    Args:
        cls: Any class.
        names: Tells the globals that a code object names.
        drop: Tells whether a decorator is to be left out, by the name that it begins with; empty
            for one that begins in another way.

    Returns:
        How to define it anew; None if no class statement has its name.

    Raises:
        CannotShip: If the statement is not what made it, or needs what cannot be had.
    """
    module = sys.modules.get(cls.__module__)
    space = module.__dict__ if module is not None else {}
    methods = dict(_methods(cls))
    sure = dict.fromkeys(method.__code__.co_filename for method in methods.values())
    file = space.get("__file__")
    if file is None:  # a notebook, a command, or what came here as source
        places = ["<string>", *_texts(), *source.units]
    else:
        places = [file]
    for filenames in (sure, places):
        statement = False
        for filename in filenames:
            for unit in _units(filename, space):
                # The last one wins, as it does when they are run.
                for place in reversed(unit.classes.get(cls.__qualname__, [])):
                    found, methods_there = _class_at(cls, unit, place, methods, names, drop)
                    if found is not None and (methods_there or filenames is places):
                        return found
                    statement = statement or found is None
        if statement:
            raise _cannot(
                f"class {cls.__qualname__}",
                "its source is not what runs: the file has changed since",
            )
    return None


def _class_at(
    cls: type,
    unit: _Unit,
    place: _Place,
    methods: dict[str, FunctionType],
    names: Callable[[CodeType], tuple[str, ...]],
    drop: Callable[[str], bool],
) -> tuple[ClassSource | None, int]:
    """Return what a class statement is good for, and how many of the methods are in it."""
    node = place.node
    span = (
        min([node, *node.decorator_list], key=_line).lineno + unit.shift,
        node.end_lineno + unit.shift,
    )
    flags = unit.flags
    cells: dict[str, CellType] = {}
    own: list[FunctionType] = []
    for method in methods.values():
        code = method.__code__
        if code.co_filename == unit.filename and span[0] <= code.co_firstlineno <= span[1]:
            own.append(method)
            flags |= code.co_flags & _FUTURES
            cells.update(zip(code.co_freevars, method.__closure__ or (), strict=True))
    for name in OF_A_CLASS_BODY:
        cells.pop(name, None)
    cells.pop(node.name, None)
    local: set[str] = set().union(*map(_bound, place.around)) - {node.name}
    for base, value in zip(node.bases, cls.__bases__, strict=False):
        if isinstance(base, ast.Name) and base.id in local:
            cells.setdefault(base.id, CellType(value))
    recipe = unit.definition(place, sorted(cells), flags, drop)
    *_, code = ways = list(unit.compiled(recipe))
    made = [each for way in ways for each in _codes(way)]
    if not all(any(_alike(each, method.__code__) for each in made) for method in own):
        return None, len(own)
    at_once = frozenset(_at_once(code))
    missing = sorted(local & at_once - set(cells))
    if missing:
        raise _cannot(
            f"class {cls.__qualname__}",
            f"its definition uses {missing[0]!r}, a variable of the function around it",
        )
    return ClassSource(recipe, cells, names(code), at_once, span), len(own)


def _methods(cls: type) -> Iterator[tuple[str, FunctionType]]:
    """Yield the functions in a class, also those under a decorator of Python's own."""
    for name, value in cls.__dict__.items():
        parts = [value]
        parts += [getattr(value, part, None) for part in ("__func__", "fget", "fset", "func")]
        for number, part in enumerate(parts):
            if isinstance(part, FunctionType):
                yield f"{name} {number}", part


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _at_once(code: CodeType) -> Iterator[str]:
    """Yield the names that a statement needs when it is run, not when its functions are called."""
    yield from code.co_names
    yield from code.co_freevars
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            name = constant.co_name
            if (
                not constant.co_flags & _OPTIMIZED
                or name in _AT_ONCE
                or name.startswith("<generic parameters of ")
            ):
                yield from _at_once(constant)


def _bound(function: Any) -> set[str]:
    """Return the names of a function's own variables."""
    arguments = function.args
    bound = {each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    bound |= {each.arg for each in (arguments.vararg, arguments.kwarg) if each is not None}
    body = function.body if isinstance(function.body, list) else [function.body]
    todo: list[ast.AST] = list(body)
    while todo:
        node = todo.pop()
        if isinstance(node, Definition):
            bound.add(node.name)
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.alias):
            bound.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
        todo += ast.iter_child_nodes(node)
    return bound


# ----------------------------------------------------------------------------- for users


def check_syntax(recipe: Recipe, implementation: str, version: tuple[int, ...]) -> None:
    """
    See whether another Python knows the syntax of a recipe, as far as that can be told from here.

    Args:
        recipe: The text.
        implementation: Of the other Python.
        version: Its major and minor version.

    Raises:
        CannotShip: If it does not.
    """
    if version[:2] >= sys.version_info[:2]:
        return
    try:
        ast.parse(recipe.whole, recipe.filename, feature_version=(version[0], version[1]))
    except SyntaxError as error:
        theirs = python_words(implementation, version)
        line = (error.lineno or 1) + recipe.shift
        raise CannotShip(
            recipe.after or recipe.name,
            f"{theirs} does not know the syntax of its source (line {line}: {error.msg})",
            python_words(),
            theirs,
            "write it so that both versions know it",
        ) from error


def deftask(function: F) -> F:
    """
    Mark a function as one to be sent by its definition. Comes from lfarm's ``deftask``.

    ::

        @deftask
        def area(width, height=1):
            return width * height

        ex.submit(area, 3, height=4)

    Most functions need no mark. This is for one of a module that servers lack or cannot import: its
    definition goes alone, with the values of the globals that it names, and what else the module
    imports is not needed there. For other versions of Python its source is recorded in time,
    whatever becomes of the file, and it is said at once if there is none; but a program that is
    typed in or comes by a pipe has none, and its functions travel as others of it do. The function
    itself stays what it is.

    Args:
        function: A function written in Python.

    Returns:
        The same function.

    Raises:
        TypeError: If it is not such a function.
        CannotShip: If its source is not to be had; it is a TypeError, too.
    """
    if not isinstance(function, FunctionType):
        raise TypeError(f"deftask is for functions written in Python, not {function!r}")
    try:
        function_recipe(function)
    except CannotShip:
        if function.__module__ != "__main__":
            raise
    send_alone(function)
    return function
