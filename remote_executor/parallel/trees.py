"""
A graph of named computations: each is computed once, in parallel, when it is called for.

::

    tree = ptree()
    tree.define("area", ["width", "height"], operator.mul)
    tree.define("width", [], measure_width)
    tree.define("height", [], measure_height)
    tree.call("area")

Whoever calls drives: it submits what can be computed and takes in what is done, one caller at a
time. Done-callbacks only put into a queue, and no lock is held while something of the user's runs.
"""

from __future__ import annotations

import enum
import inspect
import queue
import time
from _thread import get_ident
from collections import deque
from concurrent.futures import Future, TimeoutError
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from remote_executor.client.waits import check_may_wait
from remote_executor.net.interruptible import Turns, at_once, take
from remote_executor.parallel.kernel import SERIAL, Kernel, kernel_of
from remote_executor.parallel.parts import deadline_of
from remote_executor.parallel.promises import raise_kept
from remote_executor.parallel.work import stop_all
from remote_executor.task_errors import CycleError, PtreeRedefinedError, PtreeUndefinedError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable
    from concurrent.futures import Executor
    from types import TracebackType

__all__ = ["Ptree", "ptree"]

F = TypeVar("F", bound="Callable[..., Any]")


class _State(enum.Enum):
    NEW = "new"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


NEW, RUNNING, DONE, FAILED = _State


class _Node:
    """One computation."""

    __slots__ = (
        "children",
        "defaults",
        "fn",
        "id",
        "open",
        "outcome",
        "state",
        "traceback",
        "used",
        "users",
    )

    def __init__(self, id: Hashable) -> None:
        self.id = id
        self.fn: Callable[..., Any] | None = None
        self.open = [None]
        """Has one entry until it is defined."""
        self.children: list[_Node] = []
        """Whose results it takes, in order."""
        self.defaults: list[str] = []
        """Parameters with defaults, which nodes of these names replace if there are such."""
        self.used: dict[str, _Node] = {}
        """Those that do, as of when it is computed."""
        self.users: list[_Node] = []
        """Who takes its result."""
        self.state = NEW
        self.outcome: Any = None
        """Its value, or its error."""
        self.traceback: TracebackType | None = None
        """Where its error came from."""

    def takes(self, child: _Node) -> bool:
        """Return whether its computation takes a child's result, which may replace a default."""
        return not self.defaults or child in self.children or child in self.used.values()


class Ptree:
    """
    A graph of named computations. Made by :func:`ptree`; comes from lparallel's ptree.

    ::

        import remote_executor.parallel as p

        tree = p.Ptree()
        tree.define("answer", [], lambda: 42)
        with p.make_kernel(2):
            tree["answer"]  # 42

    Define nodes in any order, then :meth:`call` one. What it needs is computed on the kernel, each
    node once; results are kept. An error is kept as well, and is the error of all that need it,
    until :meth:`clear_errors`.
    """

    def __init__(self) -> None:
        self._nodes: dict[Hashable, _Node] = {}
        self._turns = Turns()
        """Who has the turn drives, and alone changes the nodes' states."""
        self._torn = False
        """Whether whoever drove last was interrupted, or drives now."""
        self._running: dict[Future[Any], _Node] = {}
        self._done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()

    def __repr__(self) -> str:
        nodes = list(self._nodes.values())
        states = ((state, sum(node.state is state for node in nodes)) for state in _State)
        counts = " ".join(f"{state.value}={count}" for state, count in states)
        return f"<Ptree nodes={len(nodes)} {counts}>"

    # ------------------------------------------------------------------------ defining

    def define(self, id: Hashable, args: Iterable[Hashable], fn: Callable[..., Any]) -> None:
        """
        Define a node (lparallel's ptree-fn).

        ::

            import remote_executor.parallel as p

            tree = p.ptree()
            tree.define("double", ["number"], lambda number: 2 * number)
            tree.define("number", [], lambda: 21)
            with p.make_kernel(2):
                tree["double"]  # 42

        Args:
            id: Its name.
            args: The names of the nodes whose results it takes, defined or not.
            fn: Called with these results.

        Raises:
            PtreeRedefinedError: If the node has a function already.
            TypeError: If ``fn`` is not callable, or a name is not hashable.
        """
        self._define(id, args, fn, [])

    def _define(
        self, id: Hashable, args: Iterable[Hashable], fn: Callable[..., Any], defaults: list[str]
    ) -> None:
        if not callable(fn):
            raise TypeError(f"the function of node {id!r} must be callable, not {fn!r}")
        names = list(args)
        hash(tuple(names))
        node = self._node(id)
        children = [self._node(name) for name in names]
        try:
            # All or nothing, whatever interrupts it, and whoever defines the same.
            at_once(
                partial(node.open.pop),
                partial(setattr, node, "children", children),
                partial(setattr, node, "defaults", defaults),
                *(partial(child.users.append, node) for child in children),
                partial(setattr, node, "fn", fn),
            )
        except IndexError:
            raise PtreeRedefinedError(id) from None

    def node(self, fn: F) -> F:
        """
        Define a node as a decorator: it is named as the function, its arguments are its children.

        ::

            import remote_executor.parallel as p

            tree = p.ptree()
            tree.define("width", [], lambda: 3)

            @tree.node
            def area(width, height=4):
                return width * height

            with p.make_kernel(2):
                tree["area"]  # 12

        A parameter with a default is a child if there is a node of its name when this one is
        computed, and keeps its default otherwise.

        Args:
            fn: A function, each parameter of which has a name that a node may have.

        Raises:
            PtreeRedefinedError: If the node has a function already.
            ValueError: If it has parameters that no child could stand for.
        """
        required, defaults, odd = [], [], []
        for each in inspect.signature(fn).parameters.values():
            if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
                odd.append(str(each))
            elif each.default is not each.empty:
                if each.kind is not each.POSITIONAL_ONLY:  # which stays as it is: it has no name
                    defaults.append(each.name)
            elif each.kind is each.KEYWORD_ONLY:
                odd.append(f"{each.name}, which needs a keyword,")
            else:
                required.append(each.name)
        if odd:
            raise ValueError(f"no node can stand for {', '.join(odd)} of {fn.__name__}")
        self._define(fn.__name__, required, fn, defaults)
        return fn

    def _node(self, id: Hashable) -> _Node:
        found = self._nodes.get(id)
        return found if found is not None else self._nodes.setdefault(id, _Node(id))

    def _known(self, id: Hashable) -> _Node:
        node = self._nodes.get(id)
        if node is None:
            raise PtreeUndefinedError(id)
        return node

    def check(self) -> None:
        """
        Check that all nodes can be computed (lparallel's check-ptree).

        ::

            import remote_executor.parallel as p

            tree = p.ptree()
            tree.define("number", [], lambda: 21)
            tree.check()

        Raises:
            PtreeUndefinedError: If a node has no function.
            CycleError: If nodes need each other.
        """
        self._order(list(self._nodes.values()), driving=False)

    def _order(self, roots: list[_Node], driving: bool) -> list[_Node]:
        """Return what is to be computed for some nodes, children first."""
        order: list[_Node] = []
        state: dict[_Node, bool] = {}  # False while its children are looked at, then True
        for root in roots:
            if root in state or root.state in (DONE, FAILED):
                continue
            self._defined(root)
            stack = [(root, iter(self._children(root, driving)))]
            state[root] = False
            while stack:
                node, children = stack[-1]
                child = next(children, None)
                if child is None:
                    stack.pop()
                    state[node] = True
                    order.append(node)
                elif child.state in (DONE, FAILED):
                    continue
                elif child not in state:
                    self._defined(child)
                    state[child] = False
                    stack.append((child, iter(self._children(child, driving))))
                elif not state[child]:
                    ring = [entry[0].id for entry in stack]
                    ring = [*ring[ring.index(child.id) :], child.id]
                    raise CycleError(" needs ".join(map(repr, ring)))
        return order

    def _children(self, node: _Node, driving: bool) -> list[_Node]:
        """Return whose results a node takes, as it stands now. Who drives takes note of it."""
        used = node.used
        if node.defaults and node.state is NEW:
            found = {name: self._nodes.get(name) for name in node.defaults}
            used = {
                name: each
                for name, each in found.items()
                if each is not None and each.fn is not None and each is not node
            }
            if driving:
                node.used = used
                for each in used.values():
                    if node not in each.users:
                        each.users.append(node)
        return [*node.children, *used.values()] if used else node.children

    def _defined(self, node: _Node) -> None:
        if node.fn is None:
            raise PtreeUndefinedError(node.id, [user.id for user in node.users])

    # ------------------------------------------------------------------------ computing

    def call(
        self,
        id: Hashable,
        *,
        timeout: float | None = None,
        executor: Executor | Kernel | None = None,
    ) -> Any:
        """
        Return the result of a node, and compute what is needed for it (lparallel's call-ptree).

        ::

            import remote_executor.parallel as p

            tree = p.ptree()
            tree.define("number", [], lambda: 21)
            with p.make_kernel(2):
                tree.call("number", timeout=60)  # 21

        Args:
            id: Its name.
            timeout: Seconds for all of it; after that, what runs is stopped on a farm's servers,
                and what was computed stays.
            executor: An Executor or a Kernel; None for the current kernel.

        Raises:
            PtreeUndefinedError: If it, or a node that it needs, has no function.
            CycleError: If nodes need each other, or a node's function calls for its own tree.
            TimeoutError: It took too long.
            Exception: The error of the node, or of one that it needs; the same each time.
        """
        root = self._known(id)
        until = deadline_of(timeout)
        if root.state not in (DONE, FAILED):
            kernel = kernel_of(executor)
            check_may_wait()
            self._alone(lambda: self._drive(root, kernel, until), kernel, root, until)
        if root.state is FAILED:
            raise_kept(root.outcome, root.traceback)
        return root.outcome

    def __getitem__(self, id: Hashable) -> Any:
        """Return the result of a node, as :meth:`call`."""
        return self.call(id)

    def _alone(
        self,
        body: Callable[[], None],
        kernel: Kernel | None,
        root: _Node | None,
        until: float | None,
    ) -> None:
        """Have the turn and do something, unless the root is computed before."""
        while self._turns.attempt(body) is None:
            if kernel is SERIAL or self._turns.holder() == get_ident():
                raise CycleError("a node's function calls for the tree that computes it")
            if until is not None and time.monotonic() >= until:
                raise TimeoutError("another thread computes the tree, and was not done in time")
            self._turns.wait(until)
            if root is not None and root.state in (DONE, FAILED):
                return

    def _repair(self) -> None:
        """Set right what whoever drove before could not end, because he was interrupted."""
        running = dict(self._running)
        known = set(running.values())
        for node in list(self._nodes.values()):
            if node.state is RUNNING and node not in known:
                node.state = NEW
        for future in running:
            # Once too often does no harm: see _next().
            future.add_done_callback(self._done.put)

    def _drive(self, root: _Node, kernel: Kernel, until: float | None) -> None:
        if self._torn:
            self._repair()
        self._torn = True
        order = self._order([root], driving=True)
        needed = set(order)
        missing: dict[_Node, int] = {}
        ready: deque[_Node] = deque()
        for node in order:
            children = [*node.children, *node.used.values()]
            failed = next((child for child in children if child.state is FAILED), None)
            if failed is not None:
                self._fail(node, failed.outcome, failed.traceback)
                continue
            missing[node] = sum(child.state is not DONE for child in children)
            if not missing[node] and node.state is NEW:
                ready.append(node)
        try:
            while root.state not in (DONE, FAILED):
                while ready:
                    self._submit(ready.popleft(), kernel)
                settled = self._next(until)
                if settled is None:
                    continue
                if settled.state is FAILED:
                    self._fail_users(settled, needed)
                    continue
                for user in settled.users:
                    if user in missing and user.state is NEW and user.takes(settled):
                        missing[user] -= 1
                        if not missing[user]:
                            ready.append(user)
        except BaseException:
            self._abandon(kernel, kill=True)
            raise
        self._abandon(kernel, kill=False)
        self._torn = False

    def _submit(self, node: _Node, kernel: Kernel) -> None:
        assert node.fn is not None
        named = {name: child.outcome for name, child in node.used.items()}
        future = kernel.submit(node.fn, *(child.outcome for child in node.children), **named)
        self._running[future] = node
        node.state = RUNNING
        future.add_done_callback(self._done.put)

    def _next(self, until: float | None) -> _Node | None:
        """Wait for a computation and settle its node; None if nobody waits for it any more."""
        future = take(self._done, until)
        if future is None:
            raise TimeoutError(f"{len(self._running)} nodes were not computed in time")
        node = self._running.pop(future, None)
        if node is None:
            return None
        try:
            node.outcome = future.result()
            node.state = DONE
        except BaseException as exc:
            if not future.done():  # a ^C, which is the caller's
                self._running[future] = node
                raise
            self._fail(node, exc, exc.__traceback__)
        return node

    @staticmethod
    def _fail(node: _Node, error: BaseException, traceback: TracebackType | None) -> None:
        node.state, node.outcome, node.traceback = FAILED, error, traceback

    def _fail_users(self, node: _Node, needed: set[_Node]) -> None:
        stack = [node]
        while stack:
            child = stack.pop()
            for user in child.users:
                if user in needed and user.state is NEW and user.takes(child):
                    self._fail(user, node.outcome, node.traceback)
                    stack.append(user)

    def _abandon(self, kernel: Kernel, kill: bool) -> None:
        """Take back what runs. A node that could not be taken back, and is not killed, goes on."""
        for future, node in list(self._running.items()):
            if kill or future.cancel():
                node.state = NEW
                del self._running[future]
                if kill and not future.cancel():
                    stop_all(kernel, [future])

    # ------------------------------------------------------------------------ looking

    def computed(self, id: Hashable) -> bool:
        """
        Return whether a node has a result or an error (lparallel's ptree-computed-p).

        ::

            import remote_executor.parallel as p

            tree = p.ptree()
            tree.define("number", [], lambda: 21)
            tree.computed("number")  # False

        Args:
            id: Its name.

        Raises:
            PtreeUndefinedError: If there is no such node.
        """
        return self._known(id).state in (DONE, FAILED)

    def clear(self) -> None:
        """
        Forget all results and errors, so that all is computed anew. Waits for who computes.

        ::

            import remote_executor.parallel as p

            tree = p.ptree()
            tree.define("number", [], lambda: 21)
            with p.make_kernel(2):
                tree["number"]  # 21
                tree.clear()
                tree.computed("number")  # False
        """
        self._forget({DONE, FAILED, RUNNING})

    def clear_errors(self) -> None:
        """
        Forget errors, so that a call goes on from where it stood. Results stay.

        ::

            import remote_executor.parallel as p

            tree = p.ptree()
            found = {}
            tree.define("number", [], lambda: found["number"])
            with p.make_kernel(2):
                try:
                    tree["number"]
                except KeyError:
                    found["number"] = 21
                tree.clear_errors()
                tree["number"]  # 21
        """
        self._forget({FAILED})

    def _forget(self, states: set[_State]) -> None:
        def forget() -> None:
            if RUNNING in states:
                self._running.clear()  # what it gives later is nobody's
            for node in list(self._nodes.values()):
                if node.state in states:
                    node.state, node.outcome, node.traceback = NEW, None, None

        self._alone(forget, None, None, None)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ptree cannot be sent to a server: call a node, and send its result")


def ptree() -> Ptree:
    """
    Return an empty graph of computations.

    ::

        import remote_executor.parallel as p

        tree = p.ptree()
        tree.define("area", ["width", "height"], lambda width, height: width * height)
        tree.define("width", [], lambda: 3)
        tree.define("height", ["width"], lambda width: width + 1)
        with p.make_kernel(2):
            tree["area"]  # 12

    Define its nodes with ``define`` or ``node``, then ``call`` one.
    """
    return Ptree()
