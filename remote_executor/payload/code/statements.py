"""
Classes that travel as their class statement, since only that says how to make them.

A metaclass of a library, such as those of pydantic, msgspec and SQLAlchemy, makes another class of
what the statement holds than one could read from the class; and so do decorators of Python's own,
for another Python. The statement's text is run there, without decorators of the script. What it
made is then given what the script did to the class since, and compared with a description of the
class here: if a global that the statement names has changed since, the class is refused there.
"""

from __future__ import annotations

import operator
import sys
from enum import Enum
from types import CellType, FunctionType, ModuleType
from typing import Any

from remote_executor.errors import CannotShip
from remote_executor.payload import source
from remote_executor.payload.captures import facts
from remote_executor.payload.code import namespace
from remote_executor.payload.code.cloudpickle_inside import goes_by_name, tracker_of
from remote_executor.payload.code.definitions import Reduced, library_base, wrapped_functions
from remote_executor.payload.code.rebuild import describe
from remote_executor.payload.code.versions import versions_of
from remote_executor.payload.pickles import plainly
from remote_executor.payload.pythons import python_words

__all__ = ["contents", "needs_statement", "reduce_by_statement"]


def needs_statement(cls: Any) -> bool:
    """Tell whether a library has a hand in how a class is made."""
    if "__is_pydantic_dataclass__" in cls.__dict__:
        return True
    return not issubclass(cls, Enum) and library_base(cls) is not None


def reduce_by_statement(pickler: Any, cls: Any) -> Reduced:
    """
    Tell how to make a class by its class statement.

    Args:
        pickler: Says what the globals of the statement are there.
        cls: The class.

    Raises:
        CannotShip: If there is no such statement, or it is not what made the class.
    """
    # This one parses: most programs have no need of it.
    from remote_executor.payload.finder import check_syntax, class_source

    generic = getattr(cls, "__pydantic_generic_metadata__", None)
    if generic and generic["origin"] is not None:
        args = generic["args"]
        one_or_all = args[0] if len(args) == 1 else args
        return operator.getitem, (generic["origin"], one_or_all), None, _ignore
    space = getattr(sys.modules.get(cls.__module__), "__dict__", {})
    found = class_source(
        cls, lambda code: facts(code).names, lambda name: is_of_script(name, space)
    )
    if found is None:
        raise _refusal(cls, pickler.portable)
    for implementation, version in pickler.pythons:
        check_syntax(found.recipe, implementation, version)
    wanted = [name for name in found.names if name != cls.__name__]
    there, first, rest = pickler.statement_globals(space, wanted, found.at_once, cls)
    pickler._cells.update(map(id, found.cells.values()))
    soon = contents(cell for name, cell in found.cells.items() if name in found.at_once)
    attributes = _attributes(pickler, cls, found)
    patches = _patches(cls, found)
    description = {} if pickler.portable else describe(cls, attributes)
    held = contents(found.cells.values())
    names = frozenset(cls.__dict__)
    numbered = pickler.fill_part is namespace.fill_part  # by a worker, which may change its own
    versions = versions_of(cls, attributes) if numbered else {}
    state = there, rest, held, attributes, patches, description, names, versions
    args = found.recipe, there, found.cells, soon, first, tracker_of(cls), _hooks(cls)
    return source.define, args, state, pickler.fill_statement


def _ignore(cls: type, state: object) -> None:  # pragma: no cover - there is no state
    pass


def _refusal(cls: Any, portable: bool) -> CannotShip:
    reason = "there is no class statement of that name in a file that can be read"
    base = library_base(cls)
    if base is not None:
        reason += f", and {base.__module__}.{base.__qualname__} makes something of its own of it"
    return CannotShip(
        f"class {cls.__qualname__}",
        reason,
        python_words(),
        "" if portable else python_words(),
        "define it by a class statement in a file, or in a module that the server has",
    )


def is_of_script(decorator: str, space: dict[str, Any]) -> bool:
    """
    Tell whether a decorator is the script's.

    What it did to a class is in the class. Python's own and those of libraries make methods that
    may be others in another Python.

    Args:
        decorator: The name that its expression begins with.
        space: The globals of the class statement.
    """
    value = space.get(decorator)
    home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    return home in (None, "__main__", "__mp_main__") or home not in sys.modules


def contents(cells: Any) -> list[tuple[CellType, Any]]:
    """Return cells with what they hold; some are not assigned yet."""
    filled = []
    for cell in cells:
        try:
            filled.append((cell, cell.cell_contents))
        except ValueError:
            continue
    return filled


def _attributes(pickler: Any, cls: Any, found: Any) -> dict[str, Any]:
    """Return the attributes that may be others now than the class statement made them."""
    base = library_base(cls)
    library = base.__module__.partition(".")[0] if base is not None else None
    attributes = {}
    for name, value in cls.__dict__.items():
        if (name[:2] == name[-2:] == "__" and not callable(value)) or name == "_abc_impl":
            continue
        functions = list(wrapped_functions(value))
        if functions:
            if not any(_is_patched(function, found) for function in functions):
                continue
        elif hasattr(type(value), "__get__") or isinstance(value, type):
            continue
        elif type(value).__module__.partition(".")[0] == library:
            continue  # the metaclass has made it
        else:
            try:
                _ = plainly(value) or pickler.dump_apart(value)
            except Exception:
                continue  # the class statement makes one there, as it did here
        attributes[name] = value
    return attributes


def _hooks(cls: Any) -> list[tuple[Any, str]]:
    """Return what the script's own bases do when a class is derived from them."""
    return [
        (base, name)
        for base in cls.__mro__[1:]
        for name in ("__init_subclass__", "__pydantic_init_subclass__")
        if name in base.__dict__ and not goes_by_name(base)
    ]


def _is_within(function: FunctionType, found: Any) -> bool:
    code = function.__code__
    first, last = found.span
    return bool(code.co_filename == found.recipe.filename and first <= code.co_firstlineno <= last)


def _is_patched(function: FunctionType, found: Any) -> bool:
    """Whether a method is the script's and not of the class statement."""
    if _is_within(function, found) or goes_by_name(function):
        return False
    home = str(function.__globals__.get("__name__"))
    return home in ("__main__", "__mp_main__") and function.__code__.co_filename[:1] != "<"


def _patches(cls: Any, found: Any) -> list[tuple[str, int, tuple[Any, ...]]]:
    """Return what the methods of a class statement hold now that is evaluated when it is run."""
    patches = []
    for name, value in cls.__dict__.items():
        for number, function in enumerate(wrapped_functions(value)):
            made = name == "__init__" and function.__code__.co_filename[:1] == "<"  # a dataclass's
            if made or _is_within(function, found):
                held = function.__defaults__, function.__kwdefaults__, dict(function.__dict__)
                if any(held):
                    patches.append((name, number, held))
    return patches
