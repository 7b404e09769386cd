"""What task_category and task_priority say reaches the submit and map of the current executor."""

from __future__ import annotations

import time

import pytest

from remote_executor import FarmExecutor, TaskKilled
from remote_executor.parallel import future, make_kernel, task_category, task_priority
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)
LONG = 30.0


def kill_one(executor, category):
    wait_until(lambda: executor.kill_tasks(category, grace=0), 20)


def killed(found):
    return isinstance(found.exception(LIMIT), TaskKilled)


def test_submit_of_the_current_executor(own):
    with own.as_kernel(), task_category("etl"):
        found = own.submit(time.sleep, LONG)
    kill_one(own, "etl")
    assert killed(found)


@pytest.mark.parametrize("how", ["map", "map_unordered", "starmap"])
def test_maps_of_the_current_executor(own, how):
    items = [(LONG,)] if how == "starmap" else [LONG]
    with own.as_kernel(), task_category("etl"):
        results = getattr(own, how)(time.sleep, items)
    kill_one(own, "etl")
    with pytest.raises(TaskKilled):
        next(results)


def test_submit_of_the_executor_of_a_kernel(own):
    with make_kernel(own), task_category("etl"):
        found = [own.submit(time.sleep, LONG), future(time.sleep, LONG)]
    wait_until(lambda: own.task_categories_running() == ["etl"] * 2, 20)
    assert own.kill_tasks("etl", grace=0) == 2
    assert killed(found[0])


def test_a_view_that_is_the_kernel_keeps_what_the_block_does_not_say(own):
    view = own.options(category="of the view", priority="low")
    with view.as_kernel(), task_priority("high"):
        found = view.submit(time.sleep, LONG)
        assert found._task.priority == 1
    kill_one(own, "of the view")
    assert killed(found)


def test_blocks_say_nothing_of_executors_that_are_not_the_kernel(own):
    view = own.options(category="of the view")
    with own.as_kernel(), task_category("etl"):
        found = view.submit(time.sleep, LONG)
    kill_one(own, "of the view")
    assert killed(found)
    with task_category("etl"):
        assert own.submit(time.sleep, 0)._task.category == "default"


def test_blocks_nest_and_end(own):
    with own.as_kernel():
        with task_category("etl"), task_priority("low"):
            with task_category("inner"):
                inner = own.submit(tasks.nothing)
            outer = own.submit(tasks.nothing)
        after = own.submit(tasks.nothing)
    assert (inner._task.category, inner._task.priority) == ("inner", -1)
    assert (outer._task.category, outer._task.priority) == ("etl", -1)
    assert (after._task.category, after._task.priority) == ("default", 0)


def test_a_broadcast_of_the_current_executor_has_the_category(own, tmp_path):
    from threading import Thread

    def run():
        with own.as_kernel(), task_category("etl"), pytest.raises(TaskKilled):
            own.broadcast(tasks.spin, tmp_path / "started")

    thread = Thread(target=run)
    thread.start()
    wait_until(lambda: own.task_categories_running() == ["etl"] * 2, 20)
    assert own.kill_tasks("etl", grace=0) == 2
    thread.join(LIMIT)
    assert not thread.is_alive()


# -- priorities


def test_what_waits_at_a_server_goes_by_priority(tmp_path):
    with FarmExecutor(1) as executor:

        def order(folder):
            """Return the order in which six tasks ran, and how many were sent ahead."""
            folder.mkdir()
            release = folder / "release"
            for _ in range(20):
                executor.submit(tasks.nothing).result(LIMIT)
            held = executor.submit(tasks.hold, folder / "held", release)
            wait_until((folder / "held").exists, 20)
            found = []
            for name in ("low", "normal", "low", "high", "normal", "high"):
                view = executor.options(priority=name)
                found.append(view.submit(tasks.record, folder / "order", name))
                executor._driver.settle_down()  # so that it is sent before the next one is there
            sent = executor.status().sent
            release.touch()
            for each in (held, *found):
                each.result(LIMIT)
            return (folder / "order").read_text().split(), sent

        for number in range(20):
            found, sent = order(tmp_path / str(number))
            if sent == 7:  # how much is sent ahead follows from how fast tasks were
                break
    assert sent == 7
    assert sorted(found, key=["high", "normal", "low"].index) == found
