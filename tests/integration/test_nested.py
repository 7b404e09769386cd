"""Tasks that make tasks: on the farm of their client, as any other, and ended with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent import futures

import pytest

from remote_executor import (
    FarmExecutor,
    NestingError,
    NoKernelError,
    TaskKilled,
    TaskTimeout,
    WorkerDied,
    current_executor,
)
from tests.integration.conftest import environment
from tests.support import nested_tasks
from tests.support.faults import Proxy, wait_gone
from tests.support.scale import scaled
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

LIMIT = scaled(30)


@pytest.fixture
def ex():
    with FarmExecutor(2) as executor:
        executor.wait_for_workers(2, LIMIT)
        yield executor


def test_a_task_submits_and_maps_on_the_farm_of_its_client(ex):
    assert ex.submit(nested_tasks.total, 10).result(LIMIT) == 45


def test_tasks_nested_in_nested_maps(ex):
    assert list(ex.map(nested_tasks.grandchildren, [3, 4, 5])) == [9, 24, 50]


def test_one_worker_is_enough_at_any_depth():
    with FarmExecutor(1) as one:
        assert one.submit(nested_tasks.deep, 3).result(LIMIT) == 3
        # Each of these has a process of its own, which waits.
        assert one.submit(nested_tasks.deep, 12, timeout=LIMIT).result(LIMIT) == 12


def test_depth_200(ex):
    assert ex.submit(nested_tasks.deep, 200).result(LIMIT) == 200


def test_a_recursion_without_an_end_says_so(ex, monkeypatch):
    monkeypatch.setattr("remote_executor.client.nested.MAX_DEPTH", 90)
    with pytest.raises(NestingError, match="recursion without an end"):
        ex.submit(nested_tasks.endless, 0).result(LIMIT)


def test_the_error_of_a_child_is_its_parents_to_handle(ex):
    assert ex.submit(nested_tasks.caught, "it").result(LIMIT) == "caught it"


def test_an_error_that_no_parent_handles_comes_to_the_client_with_both_tracebacks(ex):
    error = ex.submit(nested_tasks.not_caught, "me").exception(LIMIT)

    assert isinstance(error, LookupError)
    assert error.args == ("me",)


def test_the_error_of_a_child_says_where_it_ran(addresses):
    with FarmExecutor(addresses=[addresses[0]]) as far:
        error = far.submit(nested_tasks.not_caught, "me").exception(LIMIT)

    assert error is not None
    assert any("task fail" in note and "ran in worker" in note for note in error.__notes__)


def test_a_child_that_waits_can_be_cancelled_and_one_that_runs_cannot(ex):
    assert ex.submit(nested_tasks.cancelled).result(LIMIT) == (True, False)


def test_a_child_can_be_killed(ex):
    assert ex.submit(nested_tasks.killed).result(LIMIT) == "TaskKilled"


def test_callbacks_of_children(ex):
    assert ex.submit(nested_tasks.callbacks).result(LIMIT) == [0, 2, 4, 6, 8]


def test_as_completed_of_children(ex):
    assert ex.submit(nested_tasks.completed).result(LIMIT) == [2 * i for i in range(20)]


def test_a_timeout_of_result_is_kept(ex):
    began = time.monotonic()
    assert ex.submit(nested_tasks.timed_out).result(LIMIT) == "in time"
    assert time.monotonic() - began < scaled(3)


def test_threads_of_a_task_submit(ex):
    assert ex.submit(nested_tasks.in_threads, 4).result(LIMIT) == 4 * 3 + 6


@pytest.mark.parametrize("task", [nested_tasks.deep_in_asyncio, nested_tasks.deep_in_queues])
def test_waits_that_are_not_seen_lend_the_slot_as_well(task):
    with FarmExecutor(1) as one:
        assert one.submit(task, 4).result(LIMIT) == 4


def test_a_farm_of_a_tasks_own_is_as_before(ex):
    assert ex.submit(nested_tasks.own_farm).result(LIMIT) == [1, 2]


def test_a_shutdown_in_a_task_ends_that_executor_alone(ex):
    assert ex.submit(nested_tasks.shut_down).result(LIMIT) == 3


def test_large_arrays_are_the_childs_own(ex):
    numpy = pytest.importorskip("numpy")
    doubled, mine = ex.submit(nested_tasks.array_of_child, numpy.ones(200_000)).result(LIMIT)

    assert mine
    assert (doubled == 2).all()


def test_no_more_tasks_run_at_a_time_than_there_are_slots(ex, tmp_path):
    parents = [ex.submit(nested_tasks.many_at_a_time, tmp_path, 12) for _ in range(3)]
    assert [each.result(LIMIT) for each in parents] == [12, 12, 12]

    assert {path.name for path in tmp_path.glob("seen *")} <= {"seen 1", "seen 2"}


def test_workers_that_wait_and_those_in_their_place_have_different_indices(ex, tmp_path):
    ex.submit(nested_tasks.indices, 5, tmp_path).result(LIMIT)

    seen = [path.name.split()[1:] for path in tmp_path.glob("seen *")]
    assert len(seen) == 6
    assert len({farm for farm, _ in seen}) == len({server for _, server in seen}) == 6


def test_children_end_with_a_parent_that_is_killed(ex, tmp_path):
    parent = ex.submit(nested_tasks.parent_of_naps, tmp_path, 4, 30.0)
    wait_until(lambda: sum(bool(each.read_text()) for each in tmp_path.glob("child *")) >= 2, 20)
    assert ex.kill(parent)

    with pytest.raises(TaskKilled):
        parent.result(LIMIT)
    for begun in tmp_path.glob("child * begun"):
        wait_gone([int(begun.read_text())])
    assert ex.submit(nested_tasks.total, 3).result(LIMIT) == 3
    assert not list(tmp_path.glob("child * ended"))
    assert len(list(tmp_path.glob("child * begun"))) == 2


def test_children_end_with_a_parent_that_runs_out_of_time(ex, tmp_path):
    view = ex.options(timeout=0.5)
    parent = view.submit(nested_tasks.parent_of_naps, tmp_path, 4, 30.0)

    with pytest.raises(TaskTimeout):
        parent.result(LIMIT)
    for begun in tmp_path.glob("child * begun"):
        wait_gone([int(pid) for pid in begun.read_text().split()])


def test_children_end_with_a_parent_whose_worker_dies(ex, tmp_path):
    with pytest.raises(WorkerDied):
        ex.submit(nested_tasks.parent_that_dies, tmp_path).result(LIMIT)

    wait_gone([int((tmp_path / "child 0 begun").read_text())])


def test_a_child_whose_worker_dies_is_the_parents_to_handle(ex):
    assert ex.submit(nested_tasks.wait_for_death).result(LIMIT) == "WorkerDied"


def test_what_a_parent_does_not_wait_for_goes_on(tmp_path):
    with FarmExecutor(1) as one:
        assert one.submit(nested_tasks.leave_child, tmp_path).result(LIMIT) == "left"
    assert (tmp_path / "child 0 ended").exists()


def test_category_and_priority_are_the_parents_unless_it_says_otherwise(ex, tmp_path):
    parent = ex.options(category="mine").submit(nested_tasks.parent_of_naps, tmp_path, 1, 30.0)
    wait_until(lambda: list(tmp_path.glob("child * begun")), 20)

    assert ex.kill_tasks("mine", dry_run=True) == 2
    assert ex.kill_tasks("mine") == 2
    with pytest.raises(TaskKilled):
        parent.result(LIMIT)


def test_links_that_are_cut_under_nested_work(addresses, tmp_path):
    with Proxy(addresses[0]) as proxy, FarmExecutor(addresses=[proxy.address]) as far:
        far.wait_for_workers(1, LIMIT)
        parent = far.submit(nested_tasks.parent_of_naps, tmp_path, 6, 0.05)
        for i in range(4):
            wait_until(lambda i=i: len(list(tmp_path.glob("child * begun"))) > i, 20)
            proxy.cut()
        assert parent.result(LIMIT) == [f"child {i}" for i in range(6)]

    for path in tmp_path.glob("child *"):
        assert len(path.read_text().split()) == 1, f"{path.name} ran twice"


def test_children_of_a_lost_server_run_on_another(serve, tmp_path):
    one, other = serve(workers=1), serve(workers=1)
    with FarmExecutor(addresses=[one.address, other.address], session_grace=0.5) as far:
        far.wait_for_workers(2, LIMIT)
        parent = far.submit(nested_tasks.parent_of_naps, tmp_path, 3, 0.7)
        wait_until(lambda: list(tmp_path.glob("child * begun")), 20)
        one.kill()
        assert parent.result(LIMIT) == [f"child {i}" for i in range(3)]


def test_children_end_with_their_client(serve, tmp_path):
    server = serve(workers=2)
    program = (
        "import sys, pathlib\n"
        "from remote_executor import FarmExecutor\n"
        "from tests.support import nested_tasks\n"
        f"ex = FarmExecutor(addresses=['{server.address}'], session_grace=0.3)\n"
        f"ex.submit(nested_tasks.parent_of_naps, pathlib.Path({str(tmp_path)!r}), 2, 60.0).result()"
    )
    client = subprocess.Popen([sys.executable, "-c", program], env=environment())
    try:
        wait_until(lambda: any(each.read_text() for each in tmp_path.glob("child *")), 20)
        begun = [int(path.read_text() or 0) for path in tmp_path.glob("* begun")]
    finally:
        client.send_signal(signal.SIGKILL)
        client.wait(LIMIT)
    wait_gone([pid for pid in begun if pid])


SCRIPT = """
import os
from remote_executor import FarmExecutor, current_executor

FACTOR = 3

class Point:
    def __init__(self, x):
        self.x = x

def scale(point):
    return Point(point.x * FACTOR)

def initialize():
    global HELD
    HELD = object()  # of this worker alone, and it cannot be pickled

def spread(points):
    ex = current_executor()
    offset = 1
    named = [ex.submit(scale, point) for point in points]
    made = ex.submit(lambda point: Point(scale(point).x + offset), points[0])
    bound = ex.submit(points[0].__eq__, points[0])
    far = ex.options(retries=1).submit(os.getpid)
    assert all(type(each.result()) is Point for each in named)
    assert far.result()
    return [each.result() for each in named], made.result(), isinstance(HELD, object)

if __name__ == "__main__":
    with FarmExecutor(2, initializer=initialize) as ex:
        for FACTOR in (3, 5):
            points, made, held = ex.submit(spread, [Point(1), Point(2)]).result()
            assert all(type(each) is Point for each in [*points, made]), points
            print([each.x for each in points], made.x, held)
"""


def test_functions_classes_and_lambdas_of_a_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script], env=environment(), capture_output=True, text=True, check=False
    )

    assert done.stderr == ""
    assert done.stdout.splitlines() == ["[3, 6] 4 True", "[5, 10] 6 True"]


def test_outside_of_a_task_it_is_the_current_kernels_executor(ex):
    with pytest.raises(NoKernelError):
        current_executor()
    with ex.as_kernel():
        assert current_executor() is ex
    with futures.ThreadPoolExecutor(1) as pool:
        with pytest.raises(NoKernelError):
            pool.submit(current_executor).result(LIMIT)


def test_descriptors_and_processes_of_nested_work_are_given_back(ex):
    for _ in range(3):
        assert ex.submit(nested_tasks.total, 50).result(LIMIT) == 1225
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert ex.submit(nested_tasks.total, 50).result(LIMIT) == 1225
    assert len(os.listdir("/proc/self/fd")) <= before


# ------------------------------------------------------------- the layer above


def test_cognates_in_a_task_spread_where_that_is_asked_for():
    with FarmExecutor(2, nested="parallel") as farm:
        found = farm.submit(nested_tasks.cognates, 6).result(LIMIT)
        assert found == ("nested", 2, [i * i for i in range(6)], 15 + 6, True, 3)
        with pytest.raises(LookupError, match="three"):
            farm.submit(nested_tasks.failing_map, 8).result(LIMIT)


def test_cognates_in_a_task_are_serial_by_default(ex):
    found = ex.submit(nested_tasks.cognates, 6).result(LIMIT)

    assert found == ("serial", 1, [i * i for i in range(6)], 15 + 6, True, 3)


def test_nested_is_one_of_two_words():
    with pytest.raises(ValueError, match="nested must be"):
        FarmExecutor(1, nested="both")


def test_a_block_in_a_task_says_the_category_of_its_children(ex, tmp_path):
    parent = ex.submit(nested_tasks.categories, tmp_path)
    wait_until(lambda: list(tmp_path.glob("child * begun")), 20)

    assert ex.kill_tasks("inner") == 1
    with pytest.raises(TaskKilled):
        parent.result(LIMIT)


def test_more_functions_than_a_client_keeps(ex):
    assert ex.submit(nested_tasks.lambdas, 600).result(LIMIT) == sum(range(600))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_parallel_function(workers):
    with FarmExecutor(workers) as farm:
        assert farm.submit(nested_tasks.fib, 12).result(LIMIT) == 144


def test_forks_go_to_workers_that_are_idle(ex, tmp_path):
    ex.submit(nested_tasks.total, 3).result(LIMIT)  # both are there, and the way is open
    assert ex.submit(nested_tasks.forks, tmp_path, 5).result(LIMIT) == 32

    assert len(list(tmp_path.glob("worker *"))) >= 2
    calls = sum(len(path.read_text().split()) for path in tmp_path.glob("worker *"))
    assert calls == 63, "each was called once"
