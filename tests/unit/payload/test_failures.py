"""Exceptions that cross, and all the ways in which they do not."""

from __future__ import annotations

import asyncio
import copyreg
import itertools
import json
import os
import pickle
import sys
import traceback

import pytest

from remote_executor.errors import PayloadError
from remote_executor.net.addresses import parse_address
from remote_executor.parallel import calls
from remote_executor.payload import failures
from remote_executor.payload.failures import decode_failure, encode_failure, worker_pid
from remote_executor.task_errors import RemoteError, RemoteModuleNotFound, WorkerDied
from tests.support import payload_tasks as tasks


def raised(error, depth=0):
    try:
        tasks.fail_deep(error, depth)
    except BaseException as caught:
        return caught
    raise AssertionError


def crossed(error):
    return decode_failure(*encode_failure(error))


def text_of(error):
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


SIMPLE = [
    ValueError("bad"),
    KeyError("k"),
    FileNotFoundError(2, "No such file", "name", None, "other"),
    OSError("words only"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad byte"),
    ImportError("words", name="n", path="p"),
    StopIteration(3),
    SystemExit(4),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
    json.JSONDecodeError("words", "doc", 1),
    WorkerDied("h", 1, -9, "f"),
    PayloadError("this", "that"),
    RemoteError("m.E", "words", "text"),
]


@pytest.mark.parametrize("error", SIMPLE, ids=lambda error: type(error).__name__)
def test_an_exception_comes_with_type_arguments_and_words(error):
    again = crossed(raised(error))

    assert type(again) is type(error)
    assert again.args == error.args
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__


def test_attributes_of_built_in_exceptions_come():
    again = crossed(FileNotFoundError(2, "No such file", "name", None, "other"))
    assert (again.errno, again.filename, again.filename2) == (2, "name", "other")
    again = crossed(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad byte"))
    assert (again.encoding, again.object, again.start) == ("utf-8", b"\xff", 0)
    assert crossed(ImportError("words", name="n")).name == "n"


class Slotted(Exception):
    __slots__ = ("place", "unset")

    def __init__(self, place, **more):
        self.place = place
        self.__dict__.update(more)


def test_what_exceptions_have_in_slots_comes():
    again = crossed(raised(Slotted([1])))
    assert again.place == [1]
    assert not hasattr(again, "unset")
    again = crossed(raised(Slotted(2, words="more")))
    assert (again.place, again.words) == (2, "more")


def test_exceptions_whose_init_takes_other_arguments_come():
    again = crossed(raised(tasks.TwoArguments(7, "detail")))
    assert (str(again), again.code, again.detail) == ("7: detail", 7, "detail")
    again = crossed(raised(tasks.BadFile("there")))
    assert (again.errno, again.filename, again.where) == (2, "there", "there")


def test_exceptions_with_a_reduce_or_a_state_of_their_own_come():
    assert crossed(raised(tasks.OwnState("words"))).secret == "s!"
    again = crossed(raised(tasks.OwnWay("words")))
    assert type(again) is tasks.OwnWay
    assert again.args == ("words",)


def test_a_reducer_that_the_user_registered_is_used(monkeypatch):
    monkeypatch.setitem(
        copyreg.dispatch_table, tasks.TwoArguments, lambda e: (tasks.TwoArguments, (1, "own"))
    )

    assert crossed(tasks.TwoArguments(7, "detail")).detail == "own"


def test_an_exception_that_allows_no_assignment_comes():
    error = raised(tasks.Fixed("words"))
    error.__dict__["attribute"] = 3
    again = decode_failure(*encode_failure(error, skip=1))

    assert type(again) is tasks.Fixed
    assert again.__traceback__ is not None
    assert again.attribute == 3
    assert "words" in again.__cause__.tb


def test_frames_come_without_the_workers_own():
    error = raised(ValueError("bad"), depth=2)
    again = decode_failure(*encode_failure(error, skip=1))

    frames = traceback.extract_tb(again.__traceback__)
    assert [frame.name for frame in frames] == ["fail_deep"] * 3
    assert {frame.filename for frame in frames} == {tasks.__file__}
    assert frames[-1].line == "raise error"
    assert "in raised" not in again.__cause__.tb


def test_frames_without_a_module_name_and_more_skips_than_frames():
    code = compile("raise ValueError('bad')", "nowhere.py", "exec")
    try:
        exec(code, {"__name__": None})
    except ValueError as error:
        again = decode_failure(*encode_failure(error, skip=1))
        gone = decode_failure(*encode_failure(error, skip=9))

    assert traceback.extract_tb(again.__traceback__)[0].filename == "nowhere.py"
    assert gone.__traceback__ is None


def test_the_remote_traceback_is_the_cause_as_in_process_pool_executor():
    again = crossed(raised(ValueError("bad")))

    assert type(again.__cause__).__module__ == "concurrent.futures.process"
    assert str(again.__cause__).startswith('\n"""\nTraceback (most recent call last):\n')
    assert str(again.__cause__).endswith('ValueError: bad\n"""')
    assert "in fail_deep" in text_of(again)


def test_causes_contexts_and_notes_come():
    try:
        try:
            tasks.fail(KeyError("first"))
        except KeyError as first:
            first.__dict__["__notes__"] = ["first note"]
            try:
                tasks.fail(IndexError("between"))
            except IndexError:
                raise ValueError("second") from first
    except ValueError as second:
        second.__dict__["__notes__"] = ["a note", "another"]
        again = crossed(second)

    assert again.__notes__ == ["a note", "another"]
    assert repr(again.__cause__) == "KeyError('first')"
    assert again.__cause__.__notes__ == ["first note"]
    assert again.__cause__.__traceback__ is not None
    assert repr(again.__context__) == "IndexError('between')"
    assert again.__suppress_context__
    assert "first" in again.__cause__.__cause__.tb


def test_a_chain_that_bites_its_tail_is_survived():
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    first.me = first

    again = crossed(first)
    assert again.__cause__.__cause__ is again
    assert again.me is again


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_exception_groups_come():
    error = raised(
        ExceptionGroup("many", [raised(KeyError("a")), ExceptionGroup("more", [ValueError("b")])])  # noqa: F821
    )
    again = crossed(error)

    assert again.message == "many"
    assert repr(again.exceptions[0]) == "KeyError('a')"
    assert again.exceptions[0].__traceback__ is not None
    assert repr(again.exceptions[1].exceptions[0]) == "ValueError('b')"


def test_endless_recursion_comes_as_what_it_is():
    def endless():
        return endless()

    try:
        endless()
    except RecursionError as error:
        again = crossed(error)

    assert type(again) is RecursionError
    assert len(traceback.extract_tb(again.__traceback__)) == 200


def test_an_exception_class_of_a_function_travels_by_value():
    class Local(Exception):
        pass

    again = crossed(raised(Local("words")))
    assert type(again) is Local
    assert again.args == ("words",)
    assert again.__traceback__ is not None
    assert crossed(ValueError("a text that says __main__")).args == ("a text that says __main__",)
    again = crossed(ValueError(lambda: 3))
    assert again.args[0]() == 3


def test_an_exception_whose_cause_cannot_be_pickled_comes_with_its_name_and_words():
    error = ValueError("bad")
    error.__cause__ = raised(tasks.HoldsLock())

    again = crossed(error)
    assert type(again) is ValueError
    assert again.__cause__.type_name.endswith(".HoldsLock")
    assert again.__cause__.message == "held"
    assert "HoldsLock: held" in again.__cause__.__cause__.tb


@pytest.mark.parametrize(
    ("error", "name", "words"),
    [
        (tasks.HoldsLock(), "HoldsLock", "held"),
        (tasks.BadStr(), "BadStr", None),
        (tasks.LeavesOnLoad("x"), "LeavesOnLoad", "x"),
        (tasks.LoadsAsSomethingElse("x"), "LoadsAsSomethingElse", "x"),
        (tasks.ReducesToName("x"), "ReducesToName", "x"),
        (tasks.RefusesState("x"), "RefusesState", "x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_pickled_or_rebuilt_becomes_a_remote_error_k20(error, name, words):
    error.__dict__["__notes__"] = ["a note", 5]
    again = crossed(raised(error))

    if name == "BadStr":  # only its words are bad
        assert type(again) is tasks.BadStr
        return
    assert type(again) is RemoteError
    assert again.type_name == f"tests.support.payload_tasks.{name}"
    assert again.message == words
    assert "in fail_deep" in again.traceback_text
    assert again.__cause__.tb == f'\n"""\n{again.traceback_text}"""'
    assert again.__notes__ == ["a note"]


def test_a_built_in_name_stands_without_its_module():
    summary, _ = encode_failure(ValueError("bad"))

    again = decode_failure(summary, b"garbage")
    assert str(again) == "ValueError: bad"
    assert not hasattr(again, "__notes__")


def test_a_module_that_is_missing_here_gives_a_remote_error():
    summary, body = encode_failure(raised(tasks.TwoArguments(1, "x")))

    again = decode_failure(summary, body.replace(b"payload_tasks", b"payload_tasky"))
    assert type(again) is RemoteError
    assert again.message == "1: x"


@pytest.mark.parametrize(
    "summary",
    [b"", b"\xff", b"[]", b"{}", b'{"type": 1, "module": "", "message": "", "traceback": ""}'],
)
@pytest.mark.parametrize("body", [b"", b"garbage", pickle.dumps(ValueError("bad"))])
def test_no_bytes_make_decoding_raise(summary, body):
    again = decode_failure(summary, body)

    assert type(again) is RemoteError
    assert "without a readable summary" in str(again)


def test_a_summary_without_a_traceback_is_fine():
    summary = b'{"type": "T", "module": "", "message": "", "traceback": ""}'

    again = decode_failure(summary, b"")
    assert str(again) == "T"
    assert again.__cause__ is None


def test_the_exception_is_worth_more_than_the_text(monkeypatch):
    monkeypatch.setitem(sys.modules, "concurrent.futures.process", None)
    monkeypatch.delattr("concurrent.futures.process", raising=False)

    again = crossed(raised(ValueError("bad")))
    assert repr(again) == "ValueError('bad')"
    assert again.__cause__ is None


def test_a_traceback_that_cannot_be_printed_is_survived(monkeypatch):
    monkeypatch.setattr(traceback, "format_exception", lambda *_: 1 / 0)

    assert "ValueError: bad" in crossed(ValueError("bad")).__cause__.tb


def test_notes_that_are_no_list_are_survived():
    error = ValueError("bad")
    error.__dict__["__notes__"] = 5

    assert json.loads(encode_failure(error)[0])["notes"] == []


def test_long_texts_are_shortened_and_odd_characters_kept():
    summary, _ = encode_failure(ValueError("\udc80" + "x" * 1_000_000 + "end"))
    message = json.loads(summary)["message"]

    assert len(message) < 210_000
    assert message.startswith("\udc80x")
    assert "characters left out" in message
    assert message.endswith("end")


def test_the_interpreters_pickling_is_left_as_it_was():
    before = dict(copyreg.dispatch_table)
    crossed(raised(ValueError("bad")))

    assert before == copyreg.dispatch_table
    assert failures.encode_failure(ValueError())[1]


def test_tblib_for_all_exceptions_changes_nothing(monkeypatch):
    """Dask installs it in the client's process, for one, and there it would lose these."""
    from tblib.pickling_support import pickle_exception

    for cls in (UnicodeDecodeError, ValueError, tasks.HoldsLock, tasks.Fixed):
        monkeypatch.setitem(copyreg.dispatch_table, cls, pickle_exception)
    error = ValueError("bad")
    error.__cause__ = tasks.HoldsLock("held")

    assert str(crossed(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"))).endswith("no")
    assert type(crossed(raised(tasks.Fixed("words")))) is tasks.Fixed
    assert type(crossed(error)) is ValueError


# -- modules that a server lacks


def missing(name):
    error = ModuleNotFoundError(f"No module named {name!r}", name=name)
    return raised(error)


def test_a_missing_module_that_this_process_has():
    error = missing("numpy.linalg")
    error.__dict__["__notes__"] = ["a note"]
    error.__cause__ = KeyError("why")

    again = decode_failure(*encode_failure(error, host=lambda: "node1"))

    assert type(again) is RemoteModuleNotFound
    assert isinstance(again, ModuleNotFoundError)
    version = sys.modules["numpy"].__version__ if "numpy" in sys.modules else again.version
    assert (again.name, again.host, again.package) == ("numpy.linalg", "node1", "numpy")
    assert again.version == version
    assert again.__notes__ == ["a note"]
    assert repr(again.__cause__) == "KeyError('why')"
    assert "fail_deep" in text_of(again)
    assert "No module named 'numpy.linalg'" in text_of(again)


@pytest.mark.parametrize("error", [missing("no_such_module"), missing(None), ImportError("words")])
def test_a_missing_module_that_this_process_lacks_too(error):
    again = decode_failure(*encode_failure(error, host=lambda: "node1"))

    assert type(again) is type(error)
    assert str(again) == str(error)


def test_a_missing_module_of_nobody_knows_which_host():
    summary, body = encode_failure(missing("numpy"))
    fields = json.loads(summary)
    del fields["host"]

    assert type(decode_failure(json.dumps(fields).encode(), body)) is ModuleNotFoundError


# ------------------------------------------------------------ a chain that is not all to be had


class DoesNotLoad(Exception):
    """Pickles, and raises when it is rebuilt."""

    def __reduce__(self):
        return _refuse_to_load, (self.args,)


def _refuse_to_load(args):
    raise RuntimeError("not here")


def chained(*errors, cause=True):
    """Return the last error, each of which came of the one before."""
    for before, error in itertools.pairwise(errors):
        error.__context__ = before
        if cause:
            error.__cause__ = before  # which suppresses the context
    return errors[-1]


@pytest.mark.parametrize("cause", [True, False])
def test_an_error_keeps_its_type_although_its_cause_does_not_load(cause):
    error = chained(DoesNotLoad("the licence"), KeyError("k"), cause=cause)

    again = decode_failure(*encode_failure(error))

    assert type(again) is KeyError
    assert again.args == ("k",)
    came_of = again.__cause__ if cause else again.__context__
    assert type(came_of) is RemoteError
    assert came_of.type_name.endswith("DoesNotLoad")
    assert came_of.message == "the licence"


def test_of_a_longer_chain_all_is_had_that_can_be():
    error = chained(ValueError("first"), DoesNotLoad("second"), OSError(2, "third"), KeyError("k"))

    again = decode_failure(*encode_failure(error))

    assert [type(each) for each in walk(again)][:4] == [
        KeyError,
        FileNotFoundError,
        RemoteError,
        ValueError,
    ]


def walk(error):
    while error is not None:
        yield error
        error = error.__cause__


def test_a_cause_that_cannot_even_be_pickled_is_named():
    class Lock(Exception):
        def __reduce__(self):
            raise TypeError("cannot pickle a lock")

    again = decode_failure(*encode_failure(chained(Lock("held"), KeyError("k"))))

    assert type(again) is KeyError
    assert again.__cause__.message == "held"


def test_an_error_that_does_not_load_itself_is_a_remote_error():
    again = decode_failure(*encode_failure(chained(ValueError(1), DoesNotLoad("x"))))

    assert type(again) is RemoteError


def test_a_chain_that_loads_is_as_before():
    error = chained(ValueError("first"), KeyError("k"))
    again = decode_failure(*encode_failure(error))

    assert [type(each) for each in walk(again)][:2] == [KeyError, ValueError]
    assert again.__context__ is again.__cause__


def test_a_chain_that_leads_back_has_an_end():
    one, two = ValueError(1), KeyError(2)
    one.__cause__, two.__cause__ = two, one
    assert type(decode_failure(*encode_failure(two))) is KeyError


# ---------------------------------------------------------------- whose, and our own frames


def test_a_summary_says_which_process_it_is_from():
    summary, _ = encode_failure(ValueError("x"))

    assert worker_pid(summary) == os.getpid()
    assert worker_pid(memoryview(summary)) == os.getpid()
    assert [worker_pid(each) for each in (b"", b"{}", b"nonsense", b'{"pid": "x"}')] == [None] * 4


def raised_by(call, *args):
    try:
        call(*args)
    except Exception as exc:
        return exc
    raise AssertionError


def frames_of(error):
    summary, body = encode_failure(error, skip=1)
    return [each.name for each in traceback.extract_tb(decode_failure(summary, body).__traceback__)]


def test_frames_of_ours_around_those_of_the_program_are_left_out():
    def inner(x):
        raise KeyError(x)

    def outer(x):
        return calls.map_part(inner, [x])

    assert frames_of(raised_by(calls.map_part, outer, [1])) == ["outer", "inner"]


def test_what_ours_raises_by_a_call_of_the_program_keeps_its_frames():
    def program():
        return parse_address("")

    found = frames_of(raised_by(calls.effect, program))

    assert found[0] == "program"
    assert "parse_address" in found


def test_an_error_of_our_own_alone_keeps_its_frames():
    assert "parse_address" in frames_of(raised_by(calls.effect, parse_address, ""))
