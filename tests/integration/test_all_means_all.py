"""What is for all workers reaches all: those of servers that answer late, and those to come."""

from __future__ import annotations

import functools
import logging
import os
import socket
import time

import pytest

from remote_executor import FarmExecutor, InitializerFailed, ServersMissing, TaskTimeout
from remote_executor.parallel import (
    broadcast_task,
    kernel_worker_count,
    make_kernel,
    preduce,
    server_worker_index,
    task_categories_running,
    worker_index,
)
from tests.support import tasks
from tests.support.faults import free_port
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)


@pytest.fixture(scope="module")
def four(_leak_baseline, tmp_path_factory):
    """Return the addresses of four servers of two workers each."""
    from .conftest import ServerProcess

    folder = tmp_path_factory.mktemp("four")
    servers = [ServerProcess(folder, workers=2) for _ in range(4)]
    yield [server.address for server in servers]
    for server in servers:
        server.clean()


@pytest.fixture
def silent():
    """Return the address of a port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def nobody():
    return f"127.0.0.1:{free_port()}"


def set_and_count(name):
    """Count how often this was done in this worker."""
    tasks.STATE[name] = tasks.STATE.get(name, 0) + 1
    return os.getpid()


def append(value):
    tasks.STATE.setdefault("order", []).append(value)


def seen(name):
    return os.getpid(), tasks.STATE.get(name)


@pytest.mark.parametrize("round", range(3))
def test_broadcast_as_the_first_call_reaches_all_workers(four, round):
    with FarmExecutor(addresses=four) as executor:
        assert len(set(executor.broadcast(os.getpid))) == 8


def test_broadcast_names_a_server_that_does_not_answer(four):
    away = nobody()
    with FarmExecutor(addresses=[*four, away]) as executor:
        with pytest.raises(ServersMissing, match=away) as caught:
            executor.broadcast(tasks.set_state, "reached", 1)
        assert list(caught.value.servers) == [away]
        assert "run nowhere" in str(caught.value)
        pids = executor.broadcast(os.getpid, missing="skip")
        assert len(set(pids)) == 8
        assert executor.broadcast(tasks.get_state, "reached", missing="skip") == [None] * 8


def test_a_broadcast_that_skips_says_whom(four, caplog):
    away = nobody()
    with FarmExecutor(addresses=[*four, away]) as executor:
        with caplog.at_level(logging.WARNING, "remote_executor.client"):
            executor.options(name="the table").broadcast(abs, 1, missing="skip")
    assert any(
        away in record.getMessage() and "the table" in record.getMessage()
        for record in caplog.records
    )


def test_broadcast_waits_for_a_server_within_connect_timeout(four, serve):
    port = free_port()
    with FarmExecutor(addresses=[four[0], f"127.0.0.1:{port}"], connect_timeout=LIMIT) as executor:
        assert executor.submit(abs, -1).result(LIMIT) == 1
        later = serve(workers=1, port=port)
        assert len(set(executor.broadcast(os.getpid))) == 3
        assert later.address in {each.address for each in executor.status().servers}


def test_a_silent_server_is_missing_once_connect_timeout_is_over(four, silent):
    with FarmExecutor(addresses=[four[0], silent], connect_timeout=0.5) as executor:
        with pytest.raises(ServersMissing, match=silent):
            executor.broadcast(os.getpid)
        assert len(executor.broadcast(os.getpid, missing="skip")) == 2


def test_missing_is_one_of_two_words(embedded):
    with pytest.raises(ValueError, match="skip"):
        embedded.broadcast(os.getpid, missing="ignore")


def test_a_name_of_the_function_may_collide_with_ours_by_partial(embedded):
    fn = functools.partial(tasks.echo, keep=3, missing=4)
    assert embedded.broadcast(fn, 1) == [((1,), {"keep": 3, "missing": 4})] * 2


# -- keep


def test_what_is_kept_is_done_by_workers_that_take_the_place_of_others(own):
    pids = own.broadcast(set_and_count, "kept", keep=True)
    for _ in range(2):
        own.submit(os._exit, 3).exception(LIMIT)

    found = dict(own.broadcast(seen, "kept"))
    assert set(found.values()) == {1}, "once in each, the new ones as well"
    assert set(found) - set(pids), "there are new ones"


def test_what_is_kept_is_done_in_the_order_given_and_after_the_initializer():
    with FarmExecutor(2, initializer=append, initargs=(0,)) as executor:
        for value in (1, 2, 3):
            executor.broadcast(append, value, keep=True)
        executor.submit(os._exit, 3).exception(LIMIT)
        assert [order for _, order in executor.broadcast(seen, "order")] == [[0, 1, 2, 3]] * 2


def test_what_is_kept_is_done_by_each_of_many_short_lived_workers():
    with FarmExecutor(2, max_tasks_per_child=1) as executor:
        executor.broadcast(set_and_count, "kept", keep=True)
        found = dict(executor.map(seen, ["kept"] * 6, chunksize=1))
        assert set(found.values()) == {1}
        assert len(found) > 2


def test_what_is_kept_is_done_on_servers_that_join_later(four, serve):
    with FarmExecutor(addresses=four[0]) as executor:
        executor.broadcast(set_and_count, "kept", keep=True)
        executor.add_server(serve(workers=1).address)
        executor.wait_for_workers(3, LIMIT)
        found = executor.broadcast(seen, "kept")
        assert [count for _, count in found] == [1, 1, 1]


def test_closures_are_kept_as_they_were(own):
    number = 5
    own.broadcast(lambda: tasks.set_state("number", number), keep=True)
    number = 6
    own.submit(os._exit, 3).exception(LIMIT)
    assert own.broadcast(tasks.get_state, "number") == [5, 5]


def test_what_fails_is_not_kept(own):
    with pytest.raises(ZeroDivisionError):
        own.broadcast(divmod, 1, 0, keep=True)
    own.submit(os._exit, 3).exception(LIMIT)
    assert own.broadcast(abs, -1) == [1, 1]


def test_a_kept_broadcast_that_fails_in_a_new_worker_is_as_a_failed_initializer(tmp_path):
    mark = tmp_path / "mark"
    with FarmExecutor(1) as executor:
        executor.broadcast(fail_if_there, mark, keep=True)
        mark.touch()
        executor.submit(os._exit, 3).exception(LIMIT)
        error = executor.submit(abs, -1).exception(LIMIT)
    assert isinstance(error, InitializerFailed)
    assert "keep=True" in str(error)


def fail_if_there(mark):
    if mark.exists():
        raise ValueError("it is there")


def test_broadcast_task_keeps_and_skips(four):
    away = nobody()
    with make_kernel([four[0], away]):
        with pytest.raises(ServersMissing):
            broadcast_task(abs, 1)
        assert broadcast_task(set_and_count, "task", keep=True, missing="skip")
        assert [count for _, count in broadcast_task(seen, "task", missing="skip")] == [1, 1]


def test_a_kept_broadcast_has_the_timeout_of_its_view(own, tmp_path):
    with pytest.raises(TaskTimeout):
        own.options(timeout=0.2).broadcast(tasks.spin, tmp_path / "started", keep=True)
    assert own.broadcast(abs, -1) == [1, 1]


# -- others that say "all"


def test_wait_for_workers_without_a_number_waits_for_all_servers(four):
    with FarmExecutor(addresses=four) as executor:
        executor.wait_for_workers()
        assert executor.status().slots == 8


def test_wait_for_workers_says_who_is_missing(four):
    away = nobody()
    with FarmExecutor(addresses=[four[0], away]) as executor:
        with pytest.raises(TimeoutError, match=away):
            executor.wait_for_workers(timeout=0.3)
        executor.wait_for_workers(2, LIMIT)
    with FarmExecutor(addresses=[four[0], away], connect_timeout=0.3) as executor:
        with pytest.raises(ServersMissing, match=away):
            executor.wait_for_workers()


def test_wait_for_workers_waits_until_the_last_one_comes(four, serve):
    port = free_port()
    with FarmExecutor(addresses=[four[0], f"127.0.0.1:{port}"]) as executor:
        executor.wait_for_workers(2, LIMIT)
        serve(workers=1, port=port)
        executor.wait_for_workers(timeout=LIMIT)
        assert executor.status().slots == 3


def test_the_number_of_workers_is_right_from_the_start(four):
    with make_kernel(four) as kernel:
        assert kernel_worker_count() == 8
        assert kernel.executor.count_workers() == 8
    with make_kernel([four[0], nobody()]):
        assert kernel_worker_count() == 2
    with make_kernel(3):
        assert kernel_worker_count() == 3


def test_a_server_that_says_nothing_delays_the_number_once_and_not_for_long(four, silent):
    with make_kernel([four[0], silent]):
        assert kernel_worker_count() == 2
        start = time.monotonic()
        assert kernel_worker_count() == 2
        assert time.monotonic() - start < 1.0


def concatenate(left, right):
    return f"({left}{right})"


def test_preduce_right_after_the_start_makes_parts_for_all_workers(four):
    with make_kernel(four):
        first = preduce(concatenate, "abcdefghijklmnop")
        assert first == preduce(concatenate, "abcdefghijklmnop", parts=8)


def test_slots_of_a_lost_server_are_not_idle(serve):
    one, other = serve(workers=1), serve(workers=2)
    with make_kernel([one.address, other.address], session_grace=0.3) as kernel:
        kernel.executor.wait_for_workers()
        assert task_categories_running() == [None] * 3
        other.kill()
        wait_until(lambda: kernel.executor.status().slots == 1, 20)
        assert task_categories_running() == [None]


def test_a_worker_made_after_a_reload_does_not_have_an_older_module_by_preload(tmp_path):
    import importlib
    import sys

    name = "reloaded_module_of_all"
    source = tmp_path / f"{name}.py"
    source.write_text("VALUE = 1\n")
    sys.path.insert(0, str(tmp_path))
    try:
        with FarmExecutor(1, preload=[name]) as executor:
            module = importlib.import_module(name)
            assert executor.submit(get_value, name).result(LIMIT) == 1
            source.write_text("VALUE = 2222\n")
            importlib.reload(module)
            assert executor.submit(get_value, name).result(LIMIT) == 2222
            executor.submit(os._exit, 3).exception(LIMIT)
            assert executor.submit(get_value, name).result(LIMIT) == 2222
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop(name, None)


def get_value(name):
    import importlib

    return importlib.import_module(name).VALUE


# -- indices


def both_indices():
    return worker_index(), server_worker_index()


def test_the_index_of_a_worker_is_unique_over_the_farm(four):
    assert both_indices() == (None, None)
    with FarmExecutor(addresses=four) as executor:
        found = executor.broadcast(both_indices)
        assert sorted(index for index, _ in found) == list(range(8))
        assert sorted(index for _, index in found) == sorted([0, 1] * 4)


def test_a_worker_that_takes_the_place_of_another_has_its_index(four):
    with FarmExecutor(addresses=four[:2]) as executor:
        before = executor.broadcast(both_indices)
        executor.submit(os._exit, 3).exception(LIMIT)
        assert executor.broadcast(both_indices) == before


def test_a_server_that_is_started_anew_has_its_indices(four, serve):
    again = serve(workers=2)
    with FarmExecutor(addresses=[again.address, four[0]], session_grace=0.3) as executor:
        before = executor.broadcast(both_indices)
        again.kill()
        wait_until(lambda: executor.status().slots == 2, 20)
        again.start()
        executor.wait_for_workers(4, LIMIT)
        assert executor.broadcast(both_indices) == before


def test_a_server_that_joins_has_indices_of_its_own(four):
    with FarmExecutor(addresses=four[:1]) as executor:
        executor.broadcast(abs, 1)
        executor.add_server(four[1])
        executor.wait_for_workers(4, LIMIT)
        assert sorted(index for index, _ in executor.broadcast(both_indices)) == [0, 1, 2, 3]


def test_an_index_is_there_in_the_initializer(tmp_path):
    with FarmExecutor(2, initializer=note_index, initargs=(tmp_path,)) as executor:
        executor.broadcast(abs, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def note_index(folder):
    (folder / str(worker_index())).touch()
