"""Graphs of named computations, on every engine."""

from __future__ import annotations

import functools
import operator
import pickle
import threading
from concurrent.futures import TimeoutError

import pytest

from remote_executor import CycleError, PtreeRedefinedError, PtreeUndefinedError
from remote_executor.parallel import ptree
from tests.support import parallel_tasks as tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("kernel")
LIMIT = scaled(30)


@pytest.fixture
def tree():
    return ptree()


def test_a_small_tree(tree):
    tree.define("area", ["width", "height"], operator.mul)
    tree.define("width", ["border"], functools.partial(operator.add, 7))
    tree.define("height", ["border"], functools.partial(operator.add, 5))
    tree.define("border", [], functools.partial(int, 1))
    assert not tree.computed("area")

    assert tree.call("area") == tree["area"] == 48

    assert tree.computed("border")
    assert repr(tree) == "<Ptree nodes=4 new=0 running=0 done=4 failed=0>"


def test_each_node_is_computed_once(tree, tmp_path):
    mark = tmp_path / "mark"
    tree.define("base", [], functools.partial(tasks.touch, str(mark), 3))
    for name in range(10):
        tree.define(name, ["base"], abs)
    tree.define("top", range(10), lambda_free_sum)

    assert tree["top"] == 30
    assert tree[4] == 3
    assert mark.read_text() == "3\n"


def lambda_free_sum(*values):
    return sum(values)


def test_as_a_decorator(tree):
    tree.define("width", [], functools.partial(int, 3))
    tree.define("height", [], functools.partial(int, 4))

    assert tree.node(area) is area
    assert tree["area"] == 12
    with pytest.raises(ValueError, match=r"\*values"):
        tree.node(lambda_free_sum)


def area(width, height):
    return width * height


def test_deep_and_wide(tree):
    tree.define(0, [], functools.partial(int, 0))
    depth = 100
    for level in range(depth):
        tree.define(level + 1, [level], functools.partial(operator.add, 1))
    leaves = [("leaf", number) for number in range(100)]
    for leaf in leaves:
        tree.define(leaf, [], functools.partial(int, leaf[1]))
    tree.define("top", [depth, *leaves], lambda_free_sum)

    assert tree["top"] == depth + sum(range(100))


def test_a_very_deep_one_is_looked_at_without_recursion(tree):
    for level in range(20_000):
        tree.define(level, [level - 1] if level else [19_999], abs)

    with pytest.raises(CycleError):
        tree.check()


def test_the_traceback_of_an_error_does_not_grow(tree):
    tree.define("bad", [], tasks.fail)
    depths = set()
    for _ in range(4):
        with pytest.raises(ValueError, match="failed") as caught:
            tree.call("bad")
        depths.add(len(caught.traceback))
    assert len(depths) == 1


def test_an_error_is_kept_and_shared_by_all_above(tree, tmp_path):
    mark = tmp_path / "mark"
    tree.define("good", [], functools.partial(tasks.touch, str(mark), 1))
    tree.define("bad", ["good"], tasks.fail)
    tree.define("above", ["bad", "good"], operator.add)
    tree.define("top", ["above"], abs)

    for name in ("top", "above", "bad", "top"):
        with pytest.raises(ValueError, match="failed with 1"):
            tree[name]
    assert tree.computed("top")
    assert tree["good"] == 1
    assert mark.read_text() == "1\n"


def test_clearing_errors_goes_on_from_where_it_stood(tree, tmp_path):
    mark, ready = tmp_path / "mark", tmp_path / "ready"
    tree.define("good", [], functools.partial(tasks.touch, str(mark), 1))
    tree.define("shaky", ["good"], functools.partial(tasks.add_if, str(ready)))
    tree.define("top", ["shaky"], abs)
    with pytest.raises(FileNotFoundError):
        tree["top"]
    ready.touch()
    with pytest.raises(FileNotFoundError):
        tree["top"]

    tree.clear_errors()

    assert tree["top"] == 2
    assert mark.read_text() == "1\n"
    tree.clear()
    assert tree["top"] == 2
    assert mark.read_text() == "1\n1\n"


def test_what_is_not_defined(tree):
    tree.define("top", ["missing"], abs)
    tree.define("other", ["missing"], abs)
    for use in (tree.check, lambda: tree["top"], lambda: tree["missing"]):
        with pytest.raises(PtreeUndefinedError, match="'missing' has no function") as caught:
            use()
        assert set(caught.value.users) == {"top", "other"}
    for use in (lambda: tree["nobody"], lambda: tree.computed("nobody")):
        with pytest.raises(PtreeUndefinedError, match="'nobody'"):
            use()

    tree.define("missing", [], int)
    tree.check()
    assert tree["top"] == 0


def test_what_is_defined_twice_or_wrongly(tree):
    tree.define("a", [], int)
    with pytest.raises(PtreeRedefinedError, match="'a' has a function"):
        tree.define("a", [], int)
    with pytest.raises(TypeError, match="callable"):
        tree.define("b", [], 42)
    with pytest.raises(TypeError):
        tree.define("c", [[]], int)
    with pytest.raises(TypeError, match="cannot be sent"):
        pickle.dumps(tree)


def test_nodes_that_need_each_other(tree):
    tree.define("a", ["b"], abs)
    tree.define("b", ["c"], abs)
    tree.define("c", ["b"], abs)
    tree.define("alone", ["alone"], abs)

    with pytest.raises(CycleError, match="'b' needs 'c' needs 'b'"):
        tree["a"]
    with pytest.raises(CycleError, match="'alone' needs 'alone'"):
        tree["alone"]


def test_two_threads_call_one_tree(tree, tmp_path):
    mark = tmp_path / "mark"
    tree.define("slow", [], functools.partial(tasks.late, 0.2, 3))
    tree.define("top", ["slow"], functools.partial(tasks.touch, str(mark)))
    results = []
    threads = [threading.Thread(target=lambda: results.append(tree["top"])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)

    assert results == [3, 3, 3]
    assert mark.read_text() == "3\n"


def test_a_timeout_leaves_the_tree_as_good_as_before(tree):
    tree.define("quick", [], functools.partial(int, 1))
    tree.define("slow", ["quick"], functools.partial(tasks.late, 0.3))
    with pytest.raises(TimeoutError):
        tree.call("slow", timeout=0.15)
    assert not tree.computed("slow")

    assert tree.call("slow", timeout=LIMIT) == 1


def test_one_thread_times_out_while_another_computes(tree):
    tree.define("slow", [], functools.partial(tasks.late, 0.5, 1))
    thread = threading.Thread(target=tree.call, args=("slow",))
    thread.start()
    wait_until(lambda: "running=1" in repr(tree), LIMIT)

    with pytest.raises(TimeoutError):
        tree.call("slow", timeout=0.05)

    thread.join(LIMIT)
    assert tree.computed("slow")


def test_a_node_that_calls_for_its_own_tree(kernel, engine, tree):
    """Only where the tree is at hand at all: in a thread pool."""
    if type(engine).__name__ != "ThreadPoolExecutor":
        tree.define("itself", [], lambda: tree["itself"])
        with pytest.raises(Exception, match=r"cannot be sent|pickle|serialize"):
            tree["itself"]
        return
    tree.define("itself", [], lambda: tree["itself"])
    with pytest.raises(CycleError, match="calls for the tree"):
        tree.call("itself", timeout=LIMIT)


def scaled_area(width, height=4, *, scale=1):
    return width * height * scale


def test_a_parameter_with_a_default_needs_no_node(tree):
    tree.node(scaled_area)
    tree.define("width", [], functools.partial(int, 3))
    tree.check()

    assert tree["scaled_area"] == 12


@pytest.mark.parametrize("first", [False, True])
def test_a_node_takes_the_place_of_a_default(tree, first):
    """Whichever is defined first."""
    if first:
        tree.node(scaled_area)
    tree.define("width", [], functools.partial(int, 3))
    tree.define("scale", ["width"], functools.partial(operator.add, 7))
    if not first:
        tree.node(scaled_area)

    assert tree["scaled_area"] == 3 * 4 * 10

    tree.define("height", [], functools.partial(int, 2))
    assert tree["scaled_area"] == 3 * 4 * 10  # what was computed stays
    tree.clear()
    assert tree["scaled_area"] == 3 * 2 * 10


def test_an_error_of_a_node_in_place_of_a_default_counts(tree):
    tree.node(scaled_area)
    tree.define("width", [], functools.partial(int, 3))
    tree.define("scale", [], tasks.fail)

    with pytest.raises(ValueError, match="failed with"):
        tree.call("scaled_area")


def test_nodes_that_need_each_other_by_their_defaults(tree):
    @tree.node
    def one(other=1): ...

    @tree.node
    def other(one=1): ...

    with pytest.raises(CycleError, match="needs"):
        tree.check()
    with pytest.raises(CycleError, match="needs"):
        tree.call("one")


def test_a_parameter_that_is_named_as_its_own_node_keeps_its_default(tree):
    def scale(scale=5):
        return scale

    tree.node(scale)
    assert tree["scale"] == 5


def test_parameters_for_which_no_node_can_stand(tree):
    with pytest.raises(ValueError, match="size, which needs a keyword"):
        tree.node(lambda *, size: size)
