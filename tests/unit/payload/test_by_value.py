"""What the picklers by value add to cloudpickle's."""

from __future__ import annotations

import concurrent.futures
import functools
import io
import pickle
import sys

import numpy as np
import pytest

from remote_executor.errors import PayloadError
from remote_executor.payload.by_value import Visit, WorkerPickler
from remote_executor.payload.pickles import dump, dump_result, load
from tests.support import payload_tasks as tasks


def words(obj):
    with pytest.raises(PayloadError) as caught:
        dump(obj, "call")
    return str(caught.value)


def test_futures_and_executors_are_refused_clearly_p9():
    future = concurrent.futures.Future()
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        text = words(((1, executor), {}))

    assert "argument 2" in text
    assert "an Executor cannot be sent" in text
    assert "a Future cannot be sent, send its result()" in words((([future],), {}))
    assert "argument 1, [0] (a concurrent" in words((([future],), {}))


def test_by_value_works_where_futures_were_never_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "concurrent.futures._base")

    assert load(*dump(lambda: 3))() == 3


def test_functions_under_lru_cache_travel():
    local = functools.lru_cache(maxsize=3, typed=True)(lambda x: [x])

    again, imported = load(*dump((local, tasks.cached)))

    assert again(1) is again(1)
    assert again.cache_parameters() == {"maxsize": 3, "typed": True}
    assert imported is tasks.cached
    # beside something that needs the slower way
    assert load(*dump((tasks.cached, lambda: 1)))[0] is tasks.cached


def test_functions_by_the_type_of_their_argument_travel():
    @functools.singledispatch
    def local(x):
        return "any"

    @local.register
    def _(x: int):
        return local, local(str(x))

    again, imported = load(*dump((local, functools.singledispatch)))

    assert again(1) == (again, "any")
    assert again is not local
    assert again.__qualname__ == local.__qualname__
    assert again.__wrapped__("x") == "any"
    assert imported is functools.singledispatch
    again.register(str, len)
    assert again("ab") == 2
    assert local("ab") == "any"


def test_a_visit_tells_what_travels_by_value():
    class Local:
        pass

    def helper():
        return tasks.add

    visit = Visit()
    WorkerPickler(io.BytesIO(), bool, visit).dump(lambda: (Local, helper, tasks.Plain))

    names = [function.__name__ for function, _ in visit.functions]
    assert names == ["<lambda>", "helper"]
    assert visit.classes == [Local]


@pytest.mark.parametrize(("package", "sent"), [("own.package", True), ("", False), (None, False)])
def test_the_package_of_a_program_goes_along(monkeypatch, package, sent):
    """``python -m``: relative imports in a function of ``__main__`` start from there."""
    main = sys.modules["__main__"].__dict__
    monkeypatch.setitem(main, "__package__", package)
    exec("def of_main(): pass", main)
    visit = Visit()

    WorkerPickler(io.BytesIO(), bool, visit).dump(main.pop("of_main"))

    assert ("__package__" in visit.names) == sent


@pytest.mark.parametrize("dumper", [dump, dump_result])
def test_captured_arrays_travel_apart(dumper):
    array = np.arange(100_000.0)
    body, buffers = dumper(lambda: array)

    assert len(body) < 1000
    assert load(body, [bytearray(buffer) for buffer in buffers])()[7] == 7
    assert pickle.loads(body, buffers=buffers)()[7] == 7
