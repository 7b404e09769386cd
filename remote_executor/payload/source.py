"""
Code that travels as text: what a pickle of :mod:`remote_executor.payload.by_source` calls.

Bytecode is for one minor version of one Python. To any other a function goes as a :class:`Recipe`:
its lines as they stand in the user's file, with a few lines around them in which its captured
variables are variables again. Where the pickle is loaded the text is compiled, once, the code
object is picked out, with the line numbers and names that it has in the file::

    def __outer__(rate):             head: makes 'rate' a captured variable
        def with_tax(price):         text: lines of the file, indented as there
            return price * rate

What runs in workers is here, and it is light; what finds the text is in
:mod:`remote_executor.payload.finder`.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Sequence
from types import CellType, CodeType, FunctionType
from typing import Any, NamedTuple, NoReturn

from remote_executor.errors import CannotShip
from remote_executor.payload import mains
from remote_executor.payload.code import lines
from remote_executor.payload.pythons import abroad, python_words

__all__ = [
    "Recipe",
    "SourceTask",
    "compiled",
    "deftask_source",
    "units",
]

OUTER = "__outer__"
INNER = "__inner__"

_MOST = 4096
"""How many recipes are kept compiled."""

_EMPTY = object()


class Recipe(NamedTuple):
    """
    The text of a function or class, and how to get it out of what it compiles to.

    Attributes:
        filename: The file that it stands in.
        first: The line of that file on which ``text`` begins.
        head: Lines to put before it.
        text: Lines of the file.
        tail: Lines to put after it.
        path: Names of the code objects around it, from the outside.
        name: The code object's own name; empty for what is run as it is.
        before: The beginning of qualified names as they are compiled here ...
        after: ... and what to put in its place.
        flags: Of ``compile``, for features from ``__future__``.
    """

    filename: str
    first: int
    head: str
    text: str
    tail: str
    path: tuple[str, ...]
    name: str
    before: str
    after: str
    flags: int

    @property
    def whole(self) -> str:
        """All that is compiled, with empty lines so that line numbers are those of the file."""
        return "\n" * (self.first - 1 - self.head.count("\n")) + self.head + self.text + self.tail

    @property
    def shift(self) -> int:
        """What is left to add to its line numbers, since there is no room above line 1."""
        return min(0, self.first - 1 - self.head.count("\n"))


# ------------------------------------------------------------------------ compiling

_compiled: dict[Recipe, CodeType] = {}

units: dict[str, list[Recipe]] = {}
"""What was compiled here, by file, for code from here that is to go back as source."""


def compiled(recipe: Recipe) -> CodeType:
    """
    Return the code object of a recipe, with the line numbers of its file.

    Args:
        recipe: What to compile.

    Raises:
        CannotShip: If this Python does not know its syntax.
    """
    code = _compiled.get(recipe)
    if code is None:
        try:
            code = compile_recipe(recipe)
        except SyntaxError as error:
            _refuse_syntax(recipe.after or recipe.name, error, recipe.shift)
        if len(_compiled) >= _MOST:
            oldest = next(iter(_compiled))
            del _compiled[oldest]
            units[oldest.filename].remove(oldest)
        _compiled[recipe] = code
        units.setdefault(recipe.filename, []).append(recipe)
        if not lines.note(recipe.filename):
            _show_lines(recipe)
    return code


def compile_recipe(recipe: Recipe) -> CodeType:
    """
    As :func:`compiled`, and remember nothing.

    Raises:
        SyntaxError: If this Python does not know its syntax.
        LookupError: If there is no such code object in it.
    """
    code = compile(recipe.whole, recipe.filename, "exec", recipe.flags, dont_inherit=True)
    for name in (*recipe.path, recipe.name) if recipe.name else recipe.path:
        code = _pick(code, name)
    return _relocate(code, recipe.shift, recipe.before, recipe.after)


def _pick(code: CodeType, name: str) -> CodeType:
    """Find a code object by name: the last, since what is in its defaults comes before it."""
    found = None
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_name == name:
                found = constant
            elif constant.co_name == f"<generic parameters of {name}>":  # pragma: no cover
                # From Python 3.12 on.
                found = _pick(constant, name)
    if found is None:
        raise LookupError(name)
    return found


def _relocate(code: CodeType, shift: int, before: str, after: str) -> CodeType:
    changes: dict[str, Any] = {"co_firstlineno": max(0, code.co_firstlineno + shift)}
    constants = []
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            constant = _relocate(constant, shift, before, after)
        elif isinstance(constant, str):
            # Qualified names of classes; before Python 3.11 of functions, too.
            constant = _renamed(constant, before, after)
        constants.append(constant)
    changes["co_consts"] = tuple(constants)
    if sys.version_info >= (3, 11):  # pragma: no branch
        changes["co_qualname"] = _renamed(code.co_qualname, before, after)
    return code.replace(**changes)


def _renamed(name: str, before: str, after: str) -> str:
    if before and (name == before or name.startswith(before + ".")):
        return after + name[len(before) :]
    return name


def _refuse_syntax(what: str, error: SyntaxError, shift: int) -> NoReturn:
    line = (error.lineno or 1) + shift
    reason = (
        f"{python_words()} does not know the syntax of its source (line {line}: {error.msg}"
        + (f": {error.text.strip()!r})" if error.text else ")")
    )
    raise CannotShip(
        what, reason, abroad.client, python_words(), "write it so that both versions know it"
    ) from error


def show_known_lines(file: str) -> None:
    """Let tracebacks show what of a file was compiled here, since the client does not tell more."""
    for recipe in units.get(file, ()):
        _show_lines(recipe)


def _show_lines(recipe: Recipe) -> None:
    """Let tracebacks show the text, whether or not the file is on this machine."""
    import linecache

    lines = list(linecache.getlines(recipe.filename))
    text = recipe.text.splitlines(keepends=True)
    start, end = recipe.first - 1, recipe.first - 1 + len(text)
    lines += ["\n"] * (end - len(lines))
    # Of a lambda the text begins with what is put around it.
    parts = [line.strip() if number else line.strip(" (\n") for number, line in enumerate(text)]
    if all(part in line for part, line in zip(parts, lines[start:end], strict=True)):
        return  # it is the file itself
    lines[start:end] = [line if line.endswith("\n") else line + "\n" for line in text]
    linecache.cache[recipe.filename] = sum(map(len, lines)), None, lines, recipe.filename


# --------------------------------------------------------------- what pickles call


def new_space(name: str, filename: str | None) -> dict[str, Any]:
    """
    Make the globals for functions of a module that travels with them.

    Args:
        name: The module's name.
        filename: Its file.
    """
    return {"__builtins__": builtins, "__name__": name, "__file__": filename}


def make_function(
    recipe: Recipe, space: dict[str, Any], cells: dict[str, CellType]
) -> FunctionType:
    """
    Make a function, to be filled.

    Args:
        recipe: Its text.
        space: Its globals.
        cells: Its captured variables.

    Raises:
        CannotShip: If this Python does not know its syntax.
    """
    code = compiled(recipe)
    return FunctionType(code, space, code.co_name, None, _closure(code, cells))


def _closure(code: CodeType, cells: dict[str, CellType]) -> tuple[CellType, ...] | None:
    # None where there are none: PyPy refuses an empty one.
    return tuple(cells.get(name) or CellType() for name in code.co_freevars) or None


def fill_function(function: FunctionType, state: tuple[Any, ...]) -> None:
    """
    Finish a function and bind what it names.

    Args:
        function: As :func:`make_function` made it.
        state: Its attributes, its properties, the captured values as ``(name, cell, value)``, the
            name by which the client finds it in ``__main__`` or None, its globals (see
            :func:`bind`), and modules, which are imported now.
    """
    attributes, slots, contents, home, named, _ = state
    function.__dict__.update(attributes)
    for name, value in slots.items():
        setattr(function, name, value)
    # One that is filled again has captured variables of its own.
    own = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
    for name, cell, value in contents:
        cell.cell_contents = value
        if name in own:
            own[name].cell_contents = value
    if home is not None:
        mains.arrived[function] = home
    bind(function.__globals__, named)


def _fill_cells(contents: list[tuple[CellType, Any]]) -> None:
    for cell, value in contents:
        cell.cell_contents = value


def bind(space: dict[str, Any], named: tuple[Any, ...]) -> None:
    """
    Set globals.

    Args:
        space: Where.
        named: As a dict those of modules that are not imported here, and last: what comes before
            it is bound by being loaded.
    """
    space.update(named[-1])


def define(
    recipe: Recipe,
    space: dict[str, Any],
    cells: dict[str, CellType],
    contents: list[tuple[CellType, Any]],
    named: tuple[Any, ...],
    tracker: str,
    hooks: Sequence[tuple[Any, str]] = (),
) -> Any:
    """
    Run the statement that defines a class.

    Args:
        recipe: Its text.
        space: Its globals.
        cells: Its captured variables.
        contents: What of them it needs at once.
        named: The globals that it needs at once, for :func:`bind`.
        tracker: cloudpickle's id for the class.
        hooks: What is not to run again: see :class:`rebuild.Silence`.

    Raises:
        CannotShip: If this Python does not know its syntax.
    """
    from remote_executor.payload.code.cloudpickle_inside import track
    from remote_executor.payload.code.rebuild import Silence

    bind(space, named)
    _fill_cells(contents)
    code = compiled(recipe)
    name = recipe.after.rpartition(".")[2]
    with Silence(hooks, name):
        if recipe.path:
            made = FunctionType(code, space, name, None, _closure(code, cells))()
        else:
            before = space.get(name, _EMPTY)
            exec(code, space)
            made = space.pop(name)
            if before is not _EMPTY:
                space[name] = before
    return track(tracker, made)


# ----------------------------------------------------- functions for the far side only


class SourceTask:
    """
    A function that exists as text here and as a function on servers. See :func:`deftask_source`.

    Attributes:
        text: Its source.
        name: Which of the functions that the source defines; None for the last one.
        filename: What tracebacks call its file.
    """

    def __init__(self, text: str, name: str | None, filename: str) -> None:
        self.text = text
        self.name = name
        self.filename = filename
        self.__qualname__ = name or "deftask_source"

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """
        Refuse: it is for servers.

        Raises:
            TypeError: Always.
        """
        raise TypeError(f"{self!r} is defined for servers only: submit it to an executor")

    def __reduce__(self) -> tuple[Any, ...]:
        return defined, (self.text, self.name, self.filename)

    def __repr__(self) -> str:
        return f"<SourceTask {self.name or self.filename}>"


def deftask_source(source: str, *, name: str | None = None) -> SourceTask:
    """
    Define a function for servers only, by its source. Comes from lfarm's ``deftask*``.

    ::

        checksum = deftask_source('''
        import far_library

        def checksum(path):
            return far_library.digest(path)
        ''')
        future = ex.submit(checksum, "/data/1")

    It is not compiled here, so it may import what only servers have and use a syntax that only
    they know. A server runs the source once in each worker, in a module of its own, and the
    globals of that module stay.

    Args:
        source: Statements, indented by the same amount; or an expression whose value is the
            function, such as a lambda.
        name: Which function or class to call; by default the last one that the statements define.

    Returns:
        What to give to ``submit`` or ``map``. It cannot be called here.

    Raises:
        TypeError: If the source is not text.
        ValueError: If it is empty.
    """
    if not isinstance(source, str):
        raise TypeError(f"the source must be text, not {type(source).__name__}")
    text = _dedented(source)
    if not text.strip():
        raise ValueError("the source is empty")
    from remote_executor.payload.code.digests import digest

    return SourceTask(text, name, f"<task {digest(text.encode()).hex()[:12]}>")


def _dedented(text: str) -> str:
    """Take the indentation of the first line from all that have it."""
    lines = text.split("\n")
    first = next((line for line in lines if line.strip()), "")
    indent = first[: len(first) - len(first.lstrip())]
    return "\n".join(line[len(indent) :] if line.startswith(indent) else line for line in lines)


_defined: dict[tuple[str, str | None], Callable[..., Any]] = {}


def defined(text: str, name: str | None, filename: str) -> Callable[..., Any]:
    """
    Run the source of a :class:`SourceTask`, the first time, and return its function.

    Args:
        text: The source.
        name: The function's name, or None for the last.
        filename: What tracebacks call the file.

    Raises:
        CannotShip: If this Python does not know its syntax, or there is no such function in it.
        Exception: Whatever the source raises.
    """
    made = _defined.get((text, name))
    if made is None:
        made = _run_source(text, name, filename)
        if len(_defined) >= _MOST:
            del _defined[next(iter(_defined))]
        _defined[text, name] = made
    return made


def _run_source(text: str, name: str | None, filename: str) -> Callable[..., Any]:
    _show_lines(Recipe(filename, 1, "", text, "", (), "", "", "", 0))
    space = new_space(filename, filename)
    what = name or "deftask_source"
    try:
        made = eval(compile(text.strip(), filename, "eval", dont_inherit=True), space)
    except SyntaxError:
        try:
            tree: Any = compile(text, filename, "exec", 0x400, True)  # ast.PyCF_ONLY_AST
            code = compile(tree, filename, "exec", dont_inherit=True)
        except SyntaxError as error:
            _refuse_syntax(what, error, 0)
        exec(code, space)
        if name is None:
            names = [each.name for each in tree.body if hasattr(each, "decorator_list")]
            name = names[-1] if names else None
        made = space.get(name) if name is not None else None
    if not callable(made):
        raise CannotShip(
            what,
            "its source does not define it" if name else "its source defines no function",
            abroad.client,
            python_words(),
            "let it define a function, and give its name to deftask_source(..., name=)",
        )
    return made  # type: ignore[no-any-return]
