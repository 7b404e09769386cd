"""
Exceptions that cross: type, arguments, attributes, ``__cause__``, ``__notes__``, frames and text.

A failure travels as two parts. The *summary* is JSON and can always be read. The *pickle* is the
exception itself; it may be empty, and it may fail to load, for exceptions are often written
without a thought of pickling. Then the client gets a :class:`~remote_executor.task_errors.
RemoteError` made from the summary.
"""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import re
from itertools import pairwise
from types import FunctionType, NoneType, TracebackType
from typing import TYPE_CHECKING, Any

from remote_executor.payload.own_imports import load_own, own_first
from remote_executor.payload.pickles import needs_by_value
from remote_executor.payload.pythons import abroad

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["decode_failure", "encode_failure", "worker_pid"]

#: Of longer texts only the two ends are kept, in characters.
_MAX_TEXT = 200_000

#: Of deeper tracebacks only the two ends are kept, in frames.
_MAX_FRAMES = 200

#: So many exceptions of a chain travel alone as well.
MOST_ALONE = 20

#: Above so many bytes of a chain they do not.
MOST_CHAIN_BYTES = 1_000_000

#: No chain of causes is followed further.
_MAX_CHAIN = 1000


#: Where our own code is, as it stands in tracebacks.
_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep

#: How a summary begins.
_PID = re.compile(rb'\{"pid": (\d{1,10}),')


#: One frame: its file, its function, its line, its module.
_Place = tuple[str, str, int, str]


def encode_failure(
    error: BaseException, skip: int = 0, host: Callable[[], str] = str
) -> tuple[bytes, bytes]:
    """
    Turn an exception into bytes. It never raises.

    Args:
        error: What was raised.
        skip: So many of its outermost frames are left out, being the worker's own.
        host: Tells this machine's name, which goes along with an error that is about the machine.

    Returns:
        The summary and the pickle, for :func:`decode_failure`. The pickle is empty if the
        exception cannot be pickled.
    """
    for _ in range(skip):
        if error.__traceback__ is not None:
            # Not by setattr, some exceptions do not allow it (frozen dataclasses).
            _set(error, "__traceback__", error.__traceback__.tb_next)
    chain = _chain(error)
    for _, each in chain:
        _fold(each)
    # The whole; and, if there is a chain, each exception of it alone, for the case that one of the
    # others cannot be pickled here or rebuilt there.
    whole = _pickle_or_nothing(error, links=True)
    if len(chain) < 2:
        return _summarize(error, host), whole or _pickle_or_nothing(error, links=False)
    alone = [_pickle_or_nothing(each, links=False) for _, each in chain]
    if whole and len(whole) > MOST_CHAIN_BYTES:
        return _summarize(error, host), whole
    links = [
        {"how": how, "size": len(pickled), **_named(each)}
        for (how, each), pickled in zip(chain, alone, strict=True)
    ]
    return _summarize(error, host, whole=len(whole), chain=links), whole + b"".join(alone)


def _pickle_or_nothing(error: BaseException, links: bool) -> bytes:
    try:
        return _pickle(error, links)
    except BaseException:  # whatever its code raises, even SystemExit
        return b""


def _fold(error: BaseException) -> None:
    """
    Leave out our own frames above and between those of the program.

    What is raised in our own code, by a call of the program, keeps its frames there.
    """
    kept: list[TracebackType] = []
    last = -1
    step = error.__traceback__
    while step is not None:
        if not _is_ours(step):
            last = len(kept)
        kept.append(step)
        step = step.tb_next
    if last < 0 or not any(_is_ours(each) for each in kept[:last]):
        return
    kept = [each for index, each in enumerate(kept) if index > last or not _is_ours(each)]
    try:
        for here, following in pairwise(kept):
            here.tb_next = following
        _set(error, "__traceback__", kept[0])
    except (AttributeError, TypeError):
        pass  # a Python whose tracebacks are read-only: they are longer there


def _is_ours(step: TracebackType) -> bool:
    return step.tb_frame.f_code.co_filename.startswith(_OURS)


def worker_pid(summary: bytes | bytearray | memoryview) -> int | None:
    """
    Return the process id of the worker in which something failed.

    Args:
        summary: The first part that :func:`encode_failure` returned.
    """
    found = _PID.match(bytes(summary[:32]))
    return int(found[1]) if found else None


def _chain(error: BaseException) -> list[tuple[str, BaseException]]:
    """Return an exception and what it came of, and what that came of: how each is linked."""
    found: list[tuple[str, BaseException]] = [("", error)]
    while len(found) < MOST_ALONE:
        last = found[-1][1]
        how, step = "cause", last.__cause__
        if step is None and not last.__suppress_context__:
            how, step = "context", last.__context__
        if step is None or any(step is each for _, each in found):
            break
        found.append((how, step))
    return found


def _named(error: BaseException) -> dict[str, str]:
    cls = type(error)
    try:
        message = str(error)
    except BaseException:
        message = "<str() of it failed>"
    return {"type": cls.__qualname__, "module": cls.__module__, "message": _shortened(message)}


def decode_failure(summary: bytes, body: bytes | bytearray | memoryview) -> BaseException:
    """
    Rebuild an exception, or what stands in for it. It never raises.

    The text of the remote traceback is the last ``__cause__`` of its chain, in the form that
    ProcessPoolExecutor gives it, so that it is printed with the exception.

    Args:
        summary: The first part that :func:`encode_failure` returned.
        body: The second part. Its code runs here.
    """
    try:
        error = _load(body, summary)
        fields = _read(summary) if error is not None else {"traceback": ""}
        text = fields["traceback"]
        if type(error) is ModuleNotFoundError and isinstance(fields.get("host"), str):
            error = _explained(error, fields["host"])
    except BaseException:  # whatever its code raises, even SystemExit
        error, text = None, ""
    if error is None:
        return _stand_in(summary)
    try:
        _attach(error, text)
    except Exception:  # the exception itself is worth more than the text
        pass
    return error


def _load(body: bytes | bytearray | memoryview, summary: bytes) -> BaseException | None:
    if not len(body):
        return None
    if b'"chain"' not in summary:
        return _loaded(body)
    fields = _read(summary)
    start = int(fields["whole"])
    try:
        error = _loaded(body[:start]) if start else None
    except BaseException:  # whatever the code of one of the chain raises
        error = None
    return error or _linked(memoryview(body)[start:], fields["chain"])


def _linked(rest: memoryview, chain: list[dict[str, Any]]) -> BaseException | None:
    """Rebuild a chain from exceptions that were pickled alone; None without the first of them."""
    found: list[BaseException] = []
    for link in chain:
        size = int(link["size"])
        try:
            error = _loaded(rest[:size]) if size else None
        except BaseException:  # as above
            error = None
        rest = rest[size:]
        if error is None and not found:
            return None
        if error is None:
            from remote_executor.task_errors import RemoteError

            name = link["type"]
            if link["module"] not in ("builtins", ""):
                name = f"{link['module']}.{name}"
            error = RemoteError(name, link["message"])
        if found:
            _set(found[-1], "__cause__" if link["how"] == "cause" else "__context__", error)
        found.append(error)
    return found[0] if found else None


def _loaded(body: bytes | bytearray | memoryview) -> BaseException | None:
    error = next(_loads(body))
    return error if isinstance(error, BaseException) else None


def _loads(body: bytes | bytearray | memoryview) -> Iterator[Any]:
    # A generator, since nobody called a finished one: the frames of a rebuilt traceback lead back
    # to it, and not to our callers, whose locals would hold on to the exception and the task.
    yield pickle.loads(body)


def _explained(error: ModuleNotFoundError, host: str) -> ModuleNotFoundError:
    """Say why a server lacks a module that this process has."""
    from remote_executor.payload.modules import why_not_served

    found = why_not_served(error.name)
    if found is None:
        return error
    from remote_executor.task_errors import RemoteModuleNotFound

    better = RemoteModuleNotFound(str(error.name), host, *found)
    more = (
        None,
        error.__traceback__,
        error.__cause__,
        error.__context__,
        error.__suppress_context__,
        getattr(error, "__notes__", None),
    )
    restore(better, more)
    return better


def _read(summary: bytes) -> dict[str, Any]:
    import json

    fields = json.loads(bytes(summary))
    for name in ("type", "module", "message", "traceback"):
        if not isinstance(fields[name], str):
            raise TypeError(name)
    return dict(fields)


def _stand_in(summary: bytes) -> BaseException:
    from remote_executor.task_errors import RemoteError

    try:
        fields = _read(summary)
    except Exception:
        return RemoteError("an exception", "which came without a readable summary")
    name = fields["type"]
    if fields["module"] not in ("builtins", ""):
        name = f"{fields['module']}.{name}"
    error = RemoteError(name, fields["message"], fields["traceback"])
    notes = fields.get("notes")
    if isinstance(notes, list) and notes:
        error.__dict__["__notes__"] = [str(note) for note in notes]
    _attach(error, fields["traceback"])
    return error


def _attach(error: BaseException, text: str) -> None:
    if not text:
        return
    from concurrent.futures import process

    last = error
    for _ in range(_MAX_CHAIN):
        if last.__cause__ is None:
            # As ProcessPoolExecutor has it, which stub files have not quite.
            remote: Any = process._RemoteTraceback
            _set(last, "__cause__", remote(f'\n"""\n{text}"""'))
            return
        last = last.__cause__


def _set(error: BaseException, name: str, value: object) -> None:
    getattr(BaseException, name).__set__(error, value)


def _summarize(error: BaseException, host: Callable[[], str], **more: Any) -> bytes:
    import json

    cls = type(error)
    try:
        message = str(error)
    except BaseException:
        message = "<str() of it failed>"
    try:
        with own_first:  # it loads others late as well
            import traceback

            text = "".join(traceback.format_exception(cls, error, error.__traceback__))
    except BaseException:
        text = f"{cls.__qualname__}: {message}\n"
    notes = getattr(error, "__notes__", None)
    fields = {
        "pid": os.getpid(),  # first: worker_pid() looks for it there
        "type": str(cls.__qualname__),
        "module": str(cls.__module__),
        "message": _shortened(message),
        "traceback": _shortened(text),
        "notes": [_shortened(n) for n in notes if isinstance(n, str)]
        if isinstance(notes, (list, tuple))
        else [],
    }
    if cls is ModuleNotFoundError:
        fields["host"] = host()
    fields.update(more)
    # Lone surrogates, as in names of files, are escaped by JSON.
    return json.dumps(fields).encode()


def _shortened(text: str) -> str:
    if len(text) <= _MAX_TEXT:
        return text
    half = _MAX_TEXT // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def _pickle(error: BaseException, links: bool) -> bytes:
    file = io.BytesIO()
    try:
        _Pickler(file, links).dump(error)
        body = file.getvalue()
    except Exception:
        pass
    else:
        if not needs_by_value(body):
            return body
    file = io.BytesIO()
    _by_value(links)(file, 5).dump(error)
    return file.getvalue()


def _by_value(links: bool) -> Any:
    base: Any
    if abroad.client:
        load_own("remote_executor.payload.by_source")
        from remote_executor.payload.by_source import ForeignClientPickler

        base = ForeignClientPickler
    else:
        load_own("remote_executor.payload.by_value")
        from remote_executor.payload.by_value import ClientPickler

        base = ClientPickler

    class ByValue(base):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            reduced = _reduce(obj, links)
            return super().reducer_override(obj) if reduced is NotImplemented else reduced

    return ByValue


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, links: bool) -> None:
        super().__init__(file, 5)
        self.links = links

    def reducer_override(self, obj: Any) -> Any:
        return _reduce(obj, self.links)


def _reduce(obj: Any, links: bool) -> Any:
    if isinstance(obj, BaseException):
        return _reduce_error(obj, links)
    if isinstance(obj, TracebackType):
        return rebuild_traceback, (_places(obj),)
    return NotImplemented


def _reduce_error(error: BaseException, links: bool) -> Any:
    cls = type(error)
    reducer: Any = copyreg.dispatch_table.get(cls)
    if getattr(reducer, "__module__", None) == "tblib.pickling_support":
        # Dask, for one, has tblib pickle all exceptions in this process; we do that ourselves.
        reducer = None
    reduced: Any = error.__reduce_ex__(5) if reducer is None else reducer(error)
    if not isinstance(reduced, tuple) or any(part is not None for part in reduced[3:]):
        return reduced  # made in a way of its own, which we had better not touch
    make, args = reduced[:2]
    state = reduced[2] if len(reduced) > 2 else None
    if reducer is None and make is cls and _has_plain_reduce(cls) and _has_own_init(cls):
        # Its __init__ takes other arguments than it hands on to Exception, very likely. The
        # attributes that it made are in the state.
        make, args = rebuild_bare, (cls, args)
        state = _with_slots(error, state)
    more = (
        state,
        error.__traceback__,
        error.__cause__ if links else None,
        error.__context__ if links else None,
        error.__suppress_context__,
        getattr(error, "__notes__", None),
    )
    return make, args, more, None, None, restore


def _with_slots(error: BaseException, state: Any) -> Any:
    """Add what an exception has in slots: its own way to be pickled leaves it to ``__init__``."""
    cls: Any = type(error)
    if cls.__setstate__ is not BaseException.__setstate__ or not isinstance(
        state, (dict, NoneType)
    ):
        return state
    names: list[str] = copyreg._slotnames(cls)  # type: ignore[attr-defined]
    held = {name: getattr(error, name) for name in names if hasattr(error, name)}
    return {**(state or {}), **held} if held else state


def _has_plain_reduce(cls: type[BaseException]) -> bool:
    return not isinstance(cls.__reduce__, FunctionType) and not isinstance(
        cls.__reduce_ex__, FunctionType
    )


def _has_own_init(cls: type[BaseException]) -> bool:
    return isinstance(cls.__init__, FunctionType)


def rebuild_bare(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Make an exception without its own ``__init__``, only with that of the built-in it is."""
    error = cls.__new__(cls, *args)
    for base in cls.__mro__:  # pragma: no branch - object is the last, and it is built in
        init = base.__dict__.get("__init__")
        if init is not None and not isinstance(init, FunctionType):
            init(error, *args)
            break
    return error


def restore(error: BaseException, more: tuple[Any, ...]) -> None:
    """Give an exception its attributes, frames, chain and notes."""
    state, traceback, cause, context, suppress, notes = more
    if state is not None:
        setstate: Any = type(error).__setstate__
        try:
            setstate(error, state)
        except Exception:
            if not isinstance(state, dict):
                raise
            error.__dict__.update(state)
    _set(error, "__cause__", cause)
    _set(error, "__context__", context)
    _set(error, "__suppress_context__", suppress)
    _set(error, "__traceback__", traceback)
    if notes is not None:
        error.__dict__["__notes__"] = notes


def _places(traceback: TracebackType) -> list[_Place]:
    # A flat list, for a pickle of nested frames would be too deep after a RecursionError.
    places = []
    step: TracebackType | None = traceback
    while step is not None:
        code = step.tb_frame.f_code
        module = step.tb_frame.f_globals.get("__name__")
        places.append(
            (
                code.co_filename,
                code.co_name,
                step.tb_lineno or code.co_firstlineno,
                module if isinstance(module, str) else "?",
            )
        )
        step = step.tb_next
    half = _MAX_FRAMES // 2
    if len(places) > 2 * half:
        places = places[:half] + places[-half:]
    return places


def rebuild_traceback(places: list[_Place]) -> TracebackType | None:
    """Make a traceback that prints, and can be walked, as the remote one."""
    from types import SimpleNamespace

    load_own("tblib")
    from tblib import Traceback

    first: Any = None
    for filename, function, line, module in reversed(places):
        step: Any = object.__new__(Traceback)
        step.tb_frame = SimpleNamespace(
            f_code=SimpleNamespace(co_filename=filename, co_name=function),
            f_globals={"__name__": module, "__file__": filename},
            f_locals={},
            f_lineno=line,
        )
        step.tb_lineno = line
        step.tb_next = first
        first = step
    made: TracebackType | None = first.as_traceback()
    return made
