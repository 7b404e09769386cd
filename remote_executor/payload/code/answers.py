"""
What a worker gets that asks for a name of ``__main__``, since no code that was sent names it.

It gets what the name was bound to when its task was submitted. That is what it is bound to now,
unless the name was bound anew since: then it is told so, for nobody has kept the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from remote_executor.errors import PayloadError
from remote_executor.payload.code.names import main_globals, names

if TYPE_CHECKING:
    from remote_executor.payload.by_source import Pythons

__all__ = ["answer"]

Answer = tuple[dict[str, Any], dict[str, bytes]]


def answer(name: object, generation: int | None, pythons: Pythons | None) -> Answer:
    """
    Answer a question for a name.

    Args:
        name: As the worker sent it.
        generation: That of the names when the task was submitted; None if it is not known.
        pythons: The worker's Python, if it is another one.

    Returns:
        Fields and contents: ``"bundle"`` are the digests of the pickle and of its buffers, or it
        is None; then ``"refused"`` may say why.
    """
    from remote_executor.payload.code.digests import digest

    fields: dict[str, Any] = {"bundle": None, "refused": None}
    names.look()
    if not isinstance(name, str) or (name[:2] == name[-2:] == "__"):
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
    names.asked[name] = None
    contents = {}
    for part in (body, *buffers):
        contents[digest(b"", [part]).hex()] = bytes(part)
    fields["bundle"] = [digest(b"", [part]).hex() for part in (body, *buffers)]
    return fields, contents


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
