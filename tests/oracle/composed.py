"""
Programs that hypothesis composes: ``python -m tests.oracle.composed 2000``.

A program has values and definitions that refer to each other, a task that looks at all of them
(what they are, and which are the same object), and changes between its submits. The measure is what
happens at home. Prints the smallest program that a farm runs to another result without a word.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import hypothesis
from hypothesis import strategies as st

from remote_executor.net.tokens import renew_token
from tests.oracle.catalog import PRELUDE, Program
from tests.oracle.runner import MODES, Oracle

__all__ = ["programs"]

VALUES = [
    "object()",
    "[1, 2]",
    "dict(k=[1])",
    "7",
    "'text'",
    "collections.deque([1])",
    "types.SimpleNamespace(x=1)",
    "Box({0})",
    "[{0}, {1}]",
    "dict(k={0})",
    "({0}, {1})",
    "{0}",
]
TEXT = """
def {n}(a={0}):
    return a is {0}, look({1})
===
def {n}():
    return look({0}), look(getattr({n}, 'mark', None))
{n}.mark = {1}
===
def make():
    held = {0}
    def {n}():
        return held is {0}, look(held)
    return {n}
{n} = make()
===
@logged
def {n}():
    return look({0})
===
class C{n}(Base):
    value = {0}
    __slots__ = ('s',)
    @property
    def p(self):
        return look({1})
def {n}():
    return C{n}.value is {0}, look(C{n}().p), C{n}.__mro__[1].__name__
===
class E{n}(enum.Enum):
    A = 1
    B = 1
    C = 2
def {n}():
    return E{n}.B is E{n}.A, list(E{n}.__members__), look({0})
===
@dataclasses.dataclass
class D{n}:
    x: object = dataclasses.field(default_factory=lambda: {0})
def {n}():
    return D{n}().x is {0}, look(D{n}(1).x)
===
{n} = functools.partial(lambda a, b: (a is {0}, look(b)), {0}, {1})
"""
MORE = """
class G{n}(Base):
    __slots__ = ()
    held = {0}
    count = 0
    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        G{n}.count += 1
    @classmethod
    def kind(cls):
        return cls.__name__, cls.held is {0}
    @staticmethod
    def plain(x={1}):
        return x is {1}
class H{n}(G{n}):
    field = Field()
    def __init__(self):
        self.field = {1}
h{n} = H{n}()
def {n}():
    held = h{n}.field is {1}, look(h{n}.field), H{n}.field.name
    return H{n}.kind(), G{n}.plain(), G{n}.count, held
===
class M{n}(Base):
    def __init__(self, x={0}):
        self.x = x
    def get(self):
        return look(self.x), self is m{n}
m{n} = M{n}()
{n} = m{n}.get
===
import state
from state import items as items_{n}, bump as bump_{n}
def {n}():
    return bump_{n}(), items_{n} is state.items, len(state.items), look({0})
===
@functools.lru_cache
def cached_{n}(x):
    return look({0})
def {n}():
    return cached_{n}(1), cached_{n}(1) is cached_{n}(1), cached_{n}.cache_info().maxsize
===
@functools.singledispatch
def name_{n}(x):
    return 'other', look({0})
@name_{n}.register
def _(x: list):
    return 'list', x is {1}
def {n}():
    return name_{n}({0}), name_{n}({1})
===
table_{n} = dict(f=lambda: look({0}), held={1})
def {n}():
    return table_{n}['f'](), table_{n}['held'] is {1}
===
def gen_{n}(x={0}):
    yield x is {0}
    yield from (look({1}),)
def {n}():
    return list(gen_{n}())
===
@dataclasses.dataclass(slots=True)
class S{n}:
    x: int = 1
    y: list = dataclasses.field(default_factory=lambda: [look({0})])
    def both(self):
        return self.x, self.y
s{n} = S{n}(2)
def {n}():
    return s{n}.both(), S{n}().both(), type(s{n}) is S{n}
===
N{n} = collections.namedtuple('N{n}', 'a b', defaults=(7,))
n{n} = N{n}({0})
def {n}():
    return n{n}.a is {0}, n{n}.b, type(n{n}) is N{n}
===
def make_{n}():
    count = 0
    def up():
        nonlocal count
        count += 1
        return look({0})
    def get():
        return count
    return up, get
up_{n}, get_{n} = make_{n}()
def {n}():
    return get_{n}.__closure__[0] is up_{n}.__closure__[0], look({1})
===
def {n}():
    below = sorted(each.__name__ for each in Base.__subclasses__())
    return below, look(globals()['{0}'])
===
class D{n}(dict):
    pass
d{n} = D{n}(a={0})
d{n}.note = {1}
def {n}():
    return d{n}['a'] is {0}, d{n}.note is {1}, type(d{n}) is D{n}
"""
DEFINITIONS = re.split(r"^===$", TEXT, flags=re.M) + re.split(r"^===$", MORE, flags=re.M)
CHANGES = [
    "{0} = [5]",
    "{0} = {1}",
    "{0} = object()",
    "grow({0})",
    "grow({0})\ngrow({1})",
    "look.mark = 9",
    "def {f}():\n    return 'redefined', look({0})\n",
    "Base.level = Base.level + 1",
    "Base.extra = {0}",
    "Base.extra = 5\ndel Base.extra",
    "def look(x, depth=3):\n    return 'looked', type(x).__name__\n",
    "class Box:\n    def __init__(self, x):\n        self.x = (x, 'again')\n",
    "Box.shown = property(lambda self: {0})",
    "grow.__defaults__ = ({0},)",
    "pass",
]
STATE = """
items = []
def bump():
    items.append(1)
    return len(items) > 0
"""
HEAD = """
import collections, dataclasses, enum, functools, types
class Box:
    def __init__(self, x):
        self.x = x
class Base:
    __slots__ = ()
    level = 1
class Field:
    def __set_name__(self, owner, name):
        self.name = name
    def __get__(self, obj, owner=None):
        return self if obj is None else obj.__dict__[self.name]
    def __set__(self, obj, value):
        obj.__dict__[self.name] = value
written = 'nothing'
def prepare(value):
    global written
    written = value
def logged(function):
    @functools.wraps(function)
    def wrapper():
        return 'logged', function()
    return wrapper
def look(x, depth=3):
    if not depth:
        return '...'
    if isinstance(x, (list, tuple, collections.deque)):
        return type(x).__name__, [look(each, depth - 1) for each in x]
    if isinstance(x, dict):
        return [(key, look(x[key], depth - 1)) for key in x]
    if isinstance(x, (Box, types.SimpleNamespace)):
        return type(x).__name__, look(x.x, depth - 1)
    return x if isinstance(x, (int, str)) else type(x).__name__
def grow(x, more=None):
    if isinstance(x, (list, collections.deque)):
        x.append(len(x))
    elif isinstance(x, dict):
        x['more'] = len(x)
    elif isinstance(x, (Box, types.SimpleNamespace)):
        x.x = [x.x]
"""

_numbers = itertools.count()


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Compose a program."""
    names = ["v0", "v1"]
    lines = ["v0 = object()", "v1 = [1]"]

    def some() -> str:
        return draw(st.sampled_from(names))

    for number in range(2, draw(st.integers(2, 6))):
        text = draw(st.sampled_from(VALUES)).format(some(), some())
        lines.append(f"v{number} = {text}")
        names.append(f"v{number}")
    functions = []
    for number in range(draw(st.integers(1, 4))):
        functions.append(f"f{number}")
        text = draw(st.sampled_from(DEFINITIONS)).format(some(), some(), n=functions[-1])
        lines.append(text)
    pairs = ", ".join(f"{a} is {b}" for a, b in itertools.combinations(names, 2))
    calls = ", ".join(f"{f}()" for f in functions)
    looks = ", ".join(f"look({name})" for name in names)
    seen = f"[{pairs}], [{calls}], [{looks}], Base.level, getattr(Base, 'extra', None) is {some()}"
    lines.append(f"def task():\n    return written, {seen}, getattr(look, 'mark', None)")
    prepared = draw(st.booleans())
    lines.append(
        "with executor({}) as ex:".format(
            "initializer=prepare, initargs=('prepared',)" if prepared else ""
        )
    )
    lines.append(SUBMIT)
    for _ in range(draw(st.integers(0, 3))):
        change = draw(st.sampled_from(CHANGES))
        change = change.format(some(), some(), f=draw(st.sampled_from(functions)))
        lines += [f"    {line}" for line in change.splitlines()] + [SUBMIT]
    text = PRELUDE + HEAD + "\n".join(lines) + "\n"
    files = {"state.py": STATE}
    return Program("composed", f"number_{next(_numbers)}", text, files, measure="home")


SUBMIT = "    show(ex.submit(task).result())"


def main() -> int:
    """Compose as many programs as the argument says; return 1 if one of them is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle.composed", description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=200)
    parser.add_argument("--modes", default="elsewhere", help=f"some of {','.join(MODES)}")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    modes = options.modes.split(",")
    with tempfile.TemporaryDirectory(prefix="remote-executor-oracle-") as folder:
        os.environ["REMOTE_EXECUTOR_TOKEN_FILE"] = os.path.join(folder, "token")
        renew_token()
        with closing(Oracle(Path(folder), [], modes)) as oracle:

            @hypothesis.seed(options.seed)
            @hypothesis.settings(
                max_examples=options.count,
                deadline=None,
                database=None,
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(programs())
            def check(program: Program) -> None:
                for mode, verdict in oracle.judge(program).items():
                    if verdict.word == "wrong":
                        raise AssertionError(f"{program.text}\n{mode}: {verdict.reason}")

            try:
                check()
            except AssertionError as error:
                print(error)
                return 1
    print(f"{options.count} programs, none of them silently different")
    return 0


if __name__ == "__main__":
    sys.exit(main())
