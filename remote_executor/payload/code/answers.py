"""
What a worker gets that asks for a name of ``__main__``, since no code that was sent names it.

It gets what the name was bound to when its task was submitted. That is what it is bound to now,
unless the name was bound anew since: then it is told so, for nobody has kept the other. And it gets
the lines of the files that its code is from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from remote_executor.errors import PayloadError
from remote_executor.payload.code.lines import files
from remote_executor.payload.code.names import main_globals, names
from remote_executor.payload.code.namespace import HOOKS, WHOLE

if TYPE_CHECKING:
    from remote_executor.payload.by_source import Pythons

__all__ = ["answer", "lines_of"]

Answer = tuple[dict[str, Any], dict[str, bytes]]


def answer(name: object, generation: int | None, pythons: Pythons | None) -> Answer:
    """
    Answer a question for a name.

    Args:
        name: As the worker sent it; :data:`namespace.WHOLE` for all names.
        generation: That of the names when the task was submitted; None if it is not known.
        pythons: The worker's Python, if it is another one.

    Returns:
        Fields and contents: ``"bundle"`` are the digests of the pickle and of its buffers, or it
        is None; then ``"refused"`` may say why.
    """
    fields: dict[str, Any] = {"bundle": None, "refused": None}
    names.look()
    if name == WHOLE:
        fields["bundle"], contents = _parts(*_whole(generation, pythons))
        return fields, contents
    if not isinstance(name, str) or (name[:2] == name[-2:] == "__" and name not in HOOKS):
        return fields, {}
    if generation is not None and names.bound_since(name, generation):
        fields["refused"] = "it was bound anew, or deleted, after the task was submitted"
        return fields, {}
    if name not in main_globals():
        return fields, {}
    try:
        body, buffers = _bundle(name, pythons)
    except PayloadError as error:
        fields["refused"] = str(error)
        return fields, {}
    if name not in HOOKS:
        names.asked[name] = None
    fields["bundle"], contents = _parts(body, buffers)
    return fields, contents


def _parts(body: bytes, buffers: list[memoryview]) -> tuple[list[str], dict[str, bytes]]:
    from remote_executor.payload.code.digests import digest

    contents = {}
    for part in (body, *buffers):
        contents[digest(b"", [part]).hex()] = bytes(part)
    return [digest(b"", [part]).hex() for part in (body, *buffers)], contents


def _whole(generation: int | None, pythons: Pythons | None) -> tuple[bytes, list[memoryview]]:
    """Pickle all names, as they were when the task was submitted."""
    names.watched = True
    new: set[str] = set()
    withheld: list[str] = []
    if generation is not None:
        new = names.new_since(generation)
        main = list(main_globals())
        withheld = [each for each in main if names.bound_since(each, generation)]
        withheld = [each for each in withheld if each not in new]
    without = new.union(withheld)
    if pythons is not None:
        from remote_executor.payload.by_source import dump_whole

        return dump_whole(without, withheld, pythons)
    from remote_executor.payload.code.bundles import units, whole_bundle

    return whole_bundle(without, withheld, units)


def lines_of(file: object) -> list[str]:
    """
    Return the lines of a file that code which has travelled is of.

    Args:
        file: The file's name, as the worker sent it. Of any other file it gets nothing.
    """
    if not isinstance(file, str) or file not in files:
        return []
    import linecache

    linecache.checkcache(file)
    main = main_globals()
    return linecache.getlines(file, main if file == main.get("__file__") else None)


def _bundle(name: str, pythons: Pythons | None) -> tuple[bytes, list[memoryview]]:
    from remote_executor.payload.by_value import Need
    from remote_executor.payload.pickles import guarded

    what = f"global {name!r}"
    if pythons is not None:
        from remote_executor.payload.by_source import dump_abroad

        return dump_abroad(Need(name), what, pythons)
    from remote_executor.payload.by_value import WorkerPickler
    from remote_executor.payload.code.bundles import copied_bundle, units

    return guarded(
        lambda part: copied_bundle(part, what, (), units, WorkerPickler), Need(name), what
    )
