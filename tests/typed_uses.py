"""
What type checkers make of ``remote_executor.parallel``: checked by mypy and pyright, never run.

``mypy --strict`` checks it with the library; by hand, ``npx pyright tests/typed_uses.py``.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import operator
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import remote_executor.parallel as p

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from typing_extensions import assert_type


def length(word: str) -> int:
    return len(word)


def area(width: int, height: float) -> float:
    return width * height


def add(one: int, other: int) -> int:
    return one + other


def join(one: str, other: str) -> str:
    return one + other


def yes() -> bool:
    return True


def number() -> int:
    return 1


def word() -> str:
    return "word"


def ratio() -> float:
    return 0.5


def compare(one: str, other: str) -> int:
    return len(one) - len(other)


def nothing() -> None:
    return None


words: list[str] = ["pear", "fig"]
numbers: list[int] = [3, 1, 2]


def kernels(executor: Executor) -> None:
    assert_type(p.make_kernel(4), p.Kernel)
    assert_type(p.make_kernel(["node1:11111"]), p.Kernel)
    with p.make_kernel(executor) as kernel:
        assert_type(kernel, p.Kernel)
        assert_type(kernel.submit(length, "fig"), Future[int])
        assert_type(kernel.wait(2, timeout=1), int)
    assert_type(p.check_kernel(), p.Kernel)
    assert_type(p.kernel_worker_count(), int)
    assert_type(p.kill_tasks("naps", dry_run=True), int)
    assert_type(p.broadcast_task(length, "fig"), list[int])
    kernel.submit(length, 3)  # type: ignore[arg-type]
    kernel.submit(length)  # type: ignore[call-arg]


def channels() -> None:
    with p.Channel(maxsize=3) as channel:
        assert_type(channel, p.Channel)
        assert_type(channel.submit(length, "fig"), Future[int])
        assert_type(channel.submit(length, word="fig"), Future[int])
        assert_type(channel.submit(area, 2, height=0.5), Future[float])
        assert_type(channel.submit(length, "fig", timeout=1), Future[int])
        assert_type(channel.receive(timeout=1), Any)
        assert_type(channel.try_receive(None), tuple[Any, bool])
        assert_type(channel.receive_many(2), Iterator[Any])
        assert_type(len(channel), int)
        assert_type(channel.kill(), int)
        channel.submit(length, 3)  # type: ignore[call-overload]
        channel.submit(length)  # type: ignore[call-overload]


def promises() -> None:
    assert_type(p.promise(), p.Promise[Any])
    assert_type(p.promise(int), p.Promise[int])
    assert_type(p.future(length, "fig"), Future[int])
    assert_type(p.speculate(length, "fig"), Future[int])
    assert_type(p.delay(length, "fig"), p.Delay[int])
    assert_type(p.force(p.future(length, "fig")), int)
    assert_type(p.force(p.delay(length, "fig"), timeout=1), int)
    assert_type(p.force(p.promise(int)), int)
    assert_type(p.force(words), list[str])
    assert_type(p.force(p.chain(p.future(length, "fig"))), int)
    assert_type(p.force(p.future(p.chain, 3)), int)
    assert_type(p.chain(p.promise(str)), p.Chain[str])
    assert_type(p.fulfill(p.promise(int), 3), bool)
    assert_type(p.fulfilled(3), bool)
    p.future(length, 3)  # type: ignore[arg-type]
    p.delay(length)  # type: ignore[call-arg]


def maps() -> None:
    assert_type(p.pmap(length, words), list[int])
    assert_type(p.pmap(length, words, chunksize=3, timeout=1), list[int])
    assert_type(p.pmap(length, words, result_type=set), set[Any])
    assert_type(p.pstarmap(area, [(1, 2.0)]), list[float])
    assert_type(p.pmap_unordered(length, words), Iterator[int])
    assert_type(p.pmap_into(numbers, length, words), list[int])
    assert_type(p.pmapcan(str.split, words), list[str])


def reductions() -> None:
    assert_type(p.preduce(add, numbers), int)
    assert_type(p.preduce(add, numbers, 3), int)
    assert_type(p.preduce(operator.add, numbers, 3), int)
    assert_type(p.preduce(add, words, key=length), int)
    assert_type(p.preduce(add, words, 0, key=length, parts=2), int)
    assert_type(p.pmap_reduce(length, add, words), int)
    assert_type(p.pmap_reduce(length, add, words, 0), int)
    assert_type(p.preduce_partial(join, words), list[str])
    p.preduce(join, numbers)  # type: ignore[arg-type]


def searches() -> None:
    assert_type(p.pany(length, words), bool)
    assert_type(p.pall(None, words), bool)
    assert_type(p.pfilter(length, words), list[str])
    assert_type(p.pfilter(None, numbers), list[int])
    assert_type(p.pevery(length, words), bool)
    assert_type(p.pcount(3, numbers), int)
    p.pfilter(length, numbers)  # type: ignore[arg-type]


def sorts(row: NDArray[numpy.float64]) -> None:
    assert_type(p.psort(words), list[str])
    assert_type(p.psort(words, key=length, reverse=True), list[str])
    assert_type(p.psort(words, cmp=compare), list[str])
    assert_type(p.psort({1, 2}), list[int])
    assert_type(p.psort(row), "NDArray[numpy.float64]")
    p.psort(words, key=3)  # type: ignore[call-overload]


def at_once() -> None:
    assert_type(p.plet(number), tuple[int])
    assert_type(p.plet(number, word), tuple[int, str])
    assert_type(p.plet(number, word, ratio, timeout=1), tuple[int, str, float])
    assert_type(p.plet(number, word, ratio, yes, nothing), tuple[int, str, float, bool, None])
    assert_type(p.plet(*[number, number]), tuple[int, ...])
    assert_type(p.plet(low=number, high=word), SimpleNamespace)
    assert_type(p.plet(timeout=number, executor=word), SimpleNamespace)
    assert_type(p.pfuncall(area, number, ratio), float)
    assert_type(p.por(number, number), int | None)
    assert_type(p.pand(word, word), str | Literal[True])
    p.plet(number, 3)  # type: ignore[call-overload]


def trees() -> None:
    tree = p.ptree()
    assert_type(tree, p.Ptree)
    assert_type(tree.node(length)("fig"), int)
    assert_type(tree.computed("length"), bool)
