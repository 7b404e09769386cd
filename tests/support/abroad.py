"""
What a program does on servers of another Python: ``python abroad.py PART OLD NEW``.

``OLD`` is the address of a server of another Python, ``NEW`` that of one of the same. Prints what
came of the part, as JSON. It is run as a program, so that its functions belong to ``__main__``.
"""

# ruff: noqa: F821

from __future__ import annotations

import json
import logging
import sys
from concurrent.futures import wait
from pathlib import Path

from remote_executor import FarmExecutor

NEIGHBOUR = """
RATE = 3
class Thing:
    def __init__(self, n): self.n = n
    def get(self): return self.n * RATE
def scaled(x): return x * RATE, Thing(x)
"""


class Own(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code


SET = []
limit = 1


def initialize(value):
    global SET
    SET = [value, version()]


def version():
    return list(sys.version_info[:2])


def fails(x):
    y = x + 1
    raise Own(y)  # the very line


def scaled(x):
    return x * limit


def held():
    return SET


exec("def no_source(x): return x")


def here():
    return list(sys.version_info[:2])


def early(address, both):
    """Values are those of the submit, though no server has answered yet."""
    global limit
    with FarmExecutor(addresses=[address], initializer=initialize, initargs=(7,)) as ex:
        first = ex.submit(scaled, 10)
        local = [1]
        second = ex.submit(lambda: local)
        local.append(2)
        limit = 2
        third = ex.submit(scaled, 10)
        unsent = ex.submit(no_source, 1)
        return [
            first.result(),
            second.result(),
            third.result(),
            str(unsent.exception()),
            ex.submit(held).result(),
        ]


def maps(address, both):
    with FarmExecutor(addresses=[address]) as ex:
        adders = [lambda x, n=n: x + n for n in range(5)]
        return [
            list(ex.map(lambda x: x * limit, range(1000)))[-1],
            list(ex.map(lambda f: f(1), adders)),
            list(ex.starmap(lambda a, b: a + len(b), [(1, b"x" * 200_000)] * 3)),
            ex.broadcast(lambda: limit),
            str(catch(lambda: list(ex.map(no_source, [1])))),
            str(catch(lambda: list(ex.map(len, [[no_source]])))),
        ]


def catch(call):
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def traceback(address, both):
    with FarmExecutor(addresses=[address]) as ex:
        error = ex.submit(fails, 1).exception()
        frame = error.__traceback__
        while frame.tb_next:
            frame = frame.tb_next
        return [type(error) is Own, error.code, frame.tb_lineno, str(error.__cause__)]


def refused(address, both):
    with FarmExecutor(addresses=[address]) as ex:
        ex.wait_for_workers(1)
        future = ex.submit(no_source, 1)
        done = future.done()  # at submit: there is nowhere else to go
        argument = ex.submit(len, [no_source]).exception()
        error = future.exception()
        return [
            done,
            type(error).__name__,
            error.function,
            error.ours,
            error.theirs,
            type(argument).__name__,
        ]


def told(address, both):
    lines = []

    class Keep(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    logging.getLogger("remote_executor.client").addHandler(Keep())
    logging.getLogger("remote_executor.client").setLevel("INFO")
    with FarmExecutor(addresses=[address]) as ex:
        ex.submit(abs, 1).result()
        (server,) = ex.status().servers
        return [
            server.differences,
            server.implementation,
            server.python,
            [line for line in lines if "differs" in line],
        ]


def mixed(address, both):
    """A farm of both Pythons."""
    with FarmExecutor(addresses=both, max_workers=1) as ex:
        ex.wait_for_workers(2)
        futures = [ex.submit(lambda: (here(), sum(range(200_000)))) for _ in range(200)]
        found = [future.result()[0] for future in futures]
        some = [ex.submit(no_source, number) for number in range(100)]
        wait(some)
        ends = {type(future.exception()).__name__ for future in some}
        return [
            sorted({tuple(each) for each in found}),
            sorted(ends),
            [future.result() for future in some if not future.exception()] != [],
        ]


def initializer_refused(address, both):
    with FarmExecutor(addresses=[address], initializer=no_source, initargs=(1,)) as ex:
        return catch(lambda: ex.submit(abs, 1).result())


def own_module(address, both):
    module = Path(__file__).with_name("neighbour_of_a_program.py")
    module.write_text(NEIGHBOUR)
    import neighbour_of_a_program as neighbour

    with FarmExecutor(addresses=[address]) as ex:
        value, thing = ex.submit(neighbour.scaled, 5).result()
        return [
            value,
            type(thing) is neighbour.Thing,
            next(iter(ex.map(neighbour.scaled, [1])))[0],
            ex.submit(neighbour.Thing(4).get).result(),
        ]


def shared(address, both):
    """Data goes to any Python; what was pickled with code by value does not."""
    with FarmExecutor(addresses=[address]) as ex:
        numbers = ex.share([1, 2, bytes(300_000)])
        own = ex.share(Own(7))
        refused = ex.submit(type, own).exception()
        return [
            ex.submit(lambda: len(numbers)).result(),
            ex.submit(lambda some: len(some[2]), numbers).result(),
            list(ex.map(len, [numbers] * 3)),
            f"{type(refused).__name__}: {refused}",
        ]


def late(address, both):
    """A server of another Python that nobody knew of."""
    with FarmExecutor(addresses=[both[1]], max_workers=1) as ex:
        ex.wait_for_workers(1)
        hold = [1]
        ex.submit(sum, range(5_000_000))
        waiting = [ex.submit(lambda: limit) for _ in range(20)]
        captured = [ex.submit(lambda: hold) for _ in range(3)]
        ex.add_server(address)
        ex.remove_server(both[1], drain=False)
        results = [future.result() for future in waiting]
        kinds = {type(future.exception()).__name__ for future in captured}
        return [results, sorted(kinds)]


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](sys.argv[2], sys.argv[2:])))
