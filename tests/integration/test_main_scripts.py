"""Programs as users write and start them, with functions in ``__main__``."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.integration.conftest import environment
from tests.support.scale import scaled

HOW = ["file", "-c", "-m"]

WORK = """
from remote_executor import FarmExecutor

FACTOR = 3
TABLE = {}

class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y
    def __eq__(self, other):
        return (self.x, self.y) == (other.x, other.y)
    def moved(self, dx):
        return Point(self.x + dx, self.y)

class Trouble(Exception):
    pass

def helper(x):
    return x * FACTOR

def triple(x):
    return helper(x)

def fail(x):
    raise Trouble("of main", x)

def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)

def prepare(value):
    global TABLE
    TABLE = {"value": value}

def look():
    return TABLE.get("value")

def same(x):
    return x

if __name__ == "__main__":
    with FarmExecutor(2, initializer=prepare, initargs=("ready",)) as executor:
        assert list(executor.map(triple, range(4))) == [0, 3, 6, 9]
        assert executor.submit(fib, 10).result(20) == 55
        assert executor.submit(Point(1, 2).moved, 3).result(20) == Point(4, 2)
        found = executor.submit(same, Point(5, 6)).result(20)
        assert type(found) is Point and found == Point(5, 6)
        assert executor.submit(Point, 1, y=2).result(20) == Point(1, 2)
        assert [executor.submit(look).result(20) for _ in range(6)] == ["ready"] * 6
        assert TABLE == {}
        try:
            executor.submit(fail, 7).result(20)
        except Trouble as error:
            assert error.args == ("of main", 7)
        else:
            raise AssertionError("no Trouble")
        offset = 10
        def local(x):
            return triple(x) + offset
        assert executor.submit(local, 1).result(20) == 13
        found = executor.submit(lambda: [Point(i, offset).x for i in range(3)]).result(20)
        assert found == [0, 1, 2]
    print("fine")
"""


@pytest.mark.parametrize("how", HOW)
def test_functions_and_classes_of_main(run_script, how):
    """K7, K10, K80: with an initializer that sets a global, closures, classes and errors."""
    assert run_script(WORK, how=how) == (0, "fine\n", "")


@pytest.mark.parametrize("how", HOW)
def test_without_the_guard(run_script, how):
    """No ``if __name__ == "__main__"`` is needed: workers do not run the program again."""
    source = """
from remote_executor import FarmExecutor
print("once")
def double(x):
    return 2 * x
with FarmExecutor(2) as executor:
    print(list(executor.map(double, range(3))))
"""

    assert run_script(source, how=how) == (0, "once\n[0, 2, 4]\n", "")


def test_globals_of_main_are_those_of_the_submit(run_script):
    """A global that the client changed is sent again; what a worker changed stays its own."""
    assert run_script(
        """
from remote_executor import FarmExecutor

LEVEL = 1
COUNT = 0

def read():
    return LEVEL

def bump():
    global COUNT
    COUNT += 1
    return COUNT

if __name__ == "__main__":
    with FarmExecutor(1) as executor:
        print(executor.submit(read).result(20))
        LEVEL = 2
        print(executor.submit(read).result(20))
        print([executor.submit(bump).result(20) for _ in range(3)], COUNT)
"""
    ) == (0, "1\n2\n[1, 2, 3] 0\n", "")


def test_modules_beside_the_script(run_script, tmp_path):
    """They are imported by the workers, as by the script."""
    (tmp_path / "beside.py").write_text("import os\ndef who():\n    return os.getpid()\n")
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("VALUE = 5\ndef read():\n    return VALUE\n")

    assert run_script(
        """
import os
from remote_executor import FarmExecutor
import beside
from package.inner import read

if __name__ == "__main__":
    with FarmExecutor(1) as executor:
        print(executor.submit(beside.who).result(20) != os.getpid())
        print(executor.submit(read).result(20))
"""
    ) == (0, "True\n5\n", "")


def test_path_changed_by_the_script(run_script, tmp_path):
    """``sys.path`` of the workers is the client's."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "far_away.py").write_text("def value():\n    return 6\n")

    assert run_script(
        """
import sys
from remote_executor import FarmExecutor

if __name__ == "__main__":
    sys.path.insert(0, "elsewhere")
    import far_away
    with FarmExecutor(1) as executor:
        print(executor.submit(far_away.value).result(20))
"""
    ) == (0, "6\n", "")


def test_environment_and_directory_of_the_workers(run_script):
    """As a child process has them: the client's at the start of the executor."""
    assert run_script(
        """
import os
from remote_executor import FarmExecutor

if __name__ == "__main__":
    os.environ["COLOUR"] = "green"
    with FarmExecutor(1) as executor:
        print(executor.submit(os.environ.get, "COLOUR").result(20))
        print(executor.submit(os.getcwd).result(20) == os.getcwd())
"""
    ) == (0, "green\nTrue\n", "")


def test_a_script_that_changes_one_import(run_script):
    """ProcessPoolExecutor's own example, from the standard library's documentation."""
    code, out, err = run_script(
        """
import concurrent.futures
import math
from remote_executor import FarmExecutor as ProcessPoolExecutor

PRIMES = [112272535095293, 112582705942171, 115280095190773, 115797848077099, 1099726899285419]

def is_prime(n):
    if n < 2 or n % 2 == 0 and n > 2:
        return False
    for i in range(3, 3000, 2):
        if n % i == 0:
            return False
    return True

def main():
    with ProcessPoolExecutor() as executor:
        for number, prime in zip(PRIMES, executor.map(is_prime, PRIMES)):
            print("%d is prime: %s" % (number, prime))

if __name__ == "__main__":
    main()
"""
    )

    assert (code, err) == (0, "")
    assert out.count(" is prime: True") == 5


def test_addresses_from_the_environment(run_script, addresses):
    """No change of code: REMOTE_EXECUTOR_ADDRESSES names the servers."""
    source = """
from remote_executor import FarmExecutor
from tests.support import tasks

if __name__ == "__main__":
    with FarmExecutor() as executor:
        executor.wait_for_workers(2, 20)
        print(executor._max_workers, len(set(executor.broadcast(tasks.pid))))
"""

    found = run_script(source, env={"REMOTE_EXECUTOR_ADDRESSES": ",".join(addresses)})
    assert found == (0, "2 2\n", "")
    code, out, err = run_script(source, env={"REMOTE_EXECUTOR_ADDRESSES": "host:port"})
    assert (code, out) == (1, "")
    assert "AddressError" in err


def test_main_functions_on_servers(run_script, addresses):
    """K7: the servers never loaded the script."""
    source = WORK.replace("FarmExecutor(2, ", f"FarmExecutor(addresses={addresses!r}, ")

    assert run_script(source) == (0, "fine\n", "")


def test_interactive_input(run_script):
    """Code that no file holds, as in a notebook or at the prompt."""
    assert run_script(
        """
from remote_executor import FarmExecutor
import __main__

if __name__ == "__main__":
    code = "def shout(x):\\n    return x.upper()\\n"
    exec(compile(code, "<cell 1>", "exec"), vars(__main__))
    with FarmExecutor(1) as executor:
        print(executor.submit(__main__.shout, "a").result(20))
        code = code.replace("upper()", "upper() + '!'")
        exec(compile(code, "<cell 2>", "exec"), vars(__main__))
        print(executor.submit(__main__.shout, "a").result(20))
"""
    ) == (0, "A\nA!\n", "")


def test_the_prompt(addresses, tmp_path):
    """K7: functions and classes as they are typed in, one after the other."""
    lines = f"""
from remote_executor import FarmExecutor
executor = FarmExecutor(addresses={addresses[:1]!r})
factor = 3
class Pair:
    def __init__(self, a): self.a = a

def times(x):
    return Pair(x.a * factor)

found = executor.submit(times, Pair(2)).result(20)
print("found", found.a, type(found) is Pair)
factor = 4
print("found", executor.submit(times, Pair(2)).result(20).a)
def times(x):
    return "anew"

print("found", executor.submit(times, Pair(2)).result(20))
print("found", executor.submit(lambda: times(1)).result(20))
executor.shutdown()
"""
    done = subprocess.run(
        [sys.executable, "-i", "-q"],
        input=lines,
        capture_output=True,
        text=True,
        timeout=scaled(40),
        env=environment(),
        cwd=tmp_path,
    )

    found = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if "found" in line]
    assert found == ["6 True", "8", "anew", "anew"], done.stderr


def test_dataclasses_and_enums_of_main(run_script):
    assert run_script(
        """
import dataclasses, enum, typing
from remote_executor import FarmExecutor

@dataclasses.dataclass(frozen=True)
class Item:
    name: str
    price: float

class Colour(enum.Enum):
    RED = 1

class Pair(typing.NamedTuple):
    a: int
    b: int

def check(item, colour, pair):
    assert isinstance(item, Item) and colour is Colour.RED and isinstance(pair, Pair)
    return dataclasses.replace(item, price=2 * item.price), colour, pair

if __name__ == "__main__":
    with FarmExecutor(1) as executor:
        for _ in range(2):
            item, colour, pair = executor.submit(
                check, Item("x", 1.5), Colour.RED, Pair(1, 2)
            ).result(20)
            print(item, colour is Colour.RED, pair)
"""
    ) == (0, "Item(name='x', price=3.0) True Pair(a=1, b=2)\n" * 2, "")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX paths")
def test_odd_folder_names(run_script, tmp_path, monkeypatch):
    """Blanks, quotes and letters from elsewhere in the working directory's name."""
    folder = tmp_path / "it's a 'folder' ü"
    folder.mkdir()
    (folder / "near.py").write_text("def value():\n    return 8\n")

    assert run_script(
        f"""
import os, sys
os.chdir({str(folder)!r})
sys.path.insert(0, os.getcwd())
import near
from remote_executor import FarmExecutor

if __name__ == "__main__":
    with FarmExecutor(1) as executor:
        print(executor.submit(near.value).result(20))
"""
    ) == (0, "8\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_endless_map_holds_a_flat_memory(run_script):
    """With ``buffersize``, what has been delivered or acknowledged is let go, at either end."""
    code, out, err = run_script(
        """
import itertools
from remote_executor import FarmExecutor

def resident(pid="self"):
    return int(open(f"/proc/{pid}/status").read().split("VmRSS:")[1].split()[0]) / 1024

if __name__ == "__main__":
    with FarmExecutor(2) as executor:
        results = executor.map(abs, itertools.count(), buffersize=5000)
        sizes = []
        for _ in range(2):
            assert sum(1 for _ in itertools.islice(results, 400_000)) == 400_000
            sizes.append((resident(), resident(executor.status().servers[0].pid)))
        results.close()
    (client, server), (client_later, server_later) = sizes
    print(round(client_later - client), round(server_later - server))
""",
        limit=50,
    )

    assert (code, err) == (0, "")
    client, server = map(int, out.split())
    assert client < 8, "megabytes at the client"
    assert server < 8, "megabytes at the server"
