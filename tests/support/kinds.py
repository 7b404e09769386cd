"""
The kinds of function that travel to another Python: ``python kinds.py ADDRESS``.

Run as a program, so that all of this belongs to ``__main__``. Each kind is submitted to the server
at the address. Prints a JSON object: for each kind "right", "CannotShip: ..." or what went wrong.
The token is in ``REMOTE_EXECUTOR_TOKEN_FILE``.
"""

# What people write, and not what they should.
# ruff: noqa: B006, E731, F821, PLC3002, PYI024, RUF023, UP037, UP045

from __future__ import annotations

import abc
import asyncio
import collections
import contextlib
import dataclasses
import datetime
import decimal
import enum
import functools
import itertools
import json
import math
import operator
import os.path
import pathlib
import re
import sys
import typing
import xml.etree.ElementTree
from typing import Any, Generic, NamedTuple, TypeVar

from remote_executor import CannotShip, FarmExecutor, deftask, deftask_source

Kind = typing.Callable[[], "tuple[Any, ...]"]
KINDS: dict[str, Kind] = {}
SHIPS: dict[str, Any] = {}
"""What is expected where it is not what a call here gives."""
AFTER: dict[str, Any] = {}
"""What to do with a result before it is compared."""
REFUSED: set[str] = set()
"""Kinds that can go nowhere."""
MAY_BE_REFUSED: set[str] = set()
"""Kinds that some Pythons can load and others cannot: CannotShip is right as well."""

T = TypeVar("T")
RATE = 3
TABLE = {"a": [1, 2], "b": [3]}
SEEN: list[int] = []


def kind(function: Kind) -> Kind:
    """Register a kind: a function that returns what to submit and its arguments."""
    KINDS[function.__name__] = function
    return function


# ------------------------------------------------------------- plain functions


def double(x: int) -> int:
    """Return twice x."""
    return x * 2


def helped(x: int) -> int:
    return double(x) + len(TABLE["a"]) * RATE


def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def is_even(n: int) -> bool:
    return n == 0 or is_odd(n - 1)


def is_odd(n: int) -> bool:
    return n != 0 and is_even(n - 1)


def all_arguments(a, /, b=2, *rest, c, d=4, **more):
    return a, b, rest, c, d, list(more.items())


def annotated(x: int | None, y: list[int] = [1, 2], *, z: "double" = 0) -> dict[str, int]:
    return {"x": x or 0, "y": sum(y), "z": z}


def documented() -> str | None:
    """Say what this text is."""
    return documented.__doc__


def sized(x, sizes=(1, 2, RATE), *, names=frozenset({"p", "q"})):
    return x, sizes, sorted(names)


def generator(n):
    for index in range(n):
        received = yield index
        if received:
            return


def spread(n):
    yield from generator(n)
    yield "end"


async def later(x):
    await asyncio.sleep(0)
    return x + 1


async def many(n):
    for index in range(n):
        yield await later(index)


def run_async(n):
    async def collect():
        return [each async for each in many(n)]

    return asyncio.run(collect())


def comprehend(n):
    squares = [i * i for i in range(n) if i % RATE]
    pairs = {(i, j): i + j for i in range(n) for j in squares if j}
    return squares, pairs, {len(str(s)) for s in squares}, sum(x for x in squares)


def formatted(x):
    width = 8
    return f"{x!r:>{width}}|{x + RATE:04d}|{'yes' if x else 'no'}|{double(x)=}"


def matched(x):
    match x:
        case {"kind": "point", "at": [a, b]}:
            return a + b
        case [first, *_]:
            return first
        case str() as text:
            return text.upper()
    return None


def handled(x):
    try:
        return [10][x]
    except IndexError as error:
        return type(error).__name__
    finally:
        SEEN.append(x)


def walrus(values):
    return [y for x in values if (y := x * RATE) > 4]


def counted():
    total = 0

    def add(n):
        nonlocal total
        total += n
        return total

    return [add(1), add(2), add(3)]


def with_global():
    global COUNTER
    COUNTER = 41
    return COUNTER + 1


def imports_inside(text):
    import textwrap
    from collections import Counter

    return textwrap.dedent(text), Counter(text).most_common(1)


def uses_modules(x):
    tree = xml.etree.ElementTree.fromstring("<a><b/></a>")
    return math.floor(x), os.path.join("a", "b"), tree[0].tag, re.sub("a", "b", "banana")


def multi_line_string():
    return """
  two
        eight
	a tab
    """


def raises(x):
    raise KeyError(x)


def error_of(function, x):
    try:
        function(x)
    except KeyError as error:
        return repr(error)


def deep(x):
    def one(y):
        def two(z):
            return (lambda w: x + y + z + w + RATE)(4)

        return two(3)

    return one(2)


@kind
def plain_function():
    return double, 21


@kind
def helper_and_global_data():
    return helped, 4


@kind
def recursion():
    return fib, 10


@kind
def mutual_recursion():
    return is_even, 7


@kind
def every_parameter_kind():
    return (functools.partial(all_arguments, 1, 5, 6, c=7, z=1, y=2),)


@kind
def defaults_and_keyword_only_defaults():
    return sized, 1


@kind
def annotations():
    return annotated, None


@kind
def docstring():
    return (documented,)


@kind
def generator_as_helper():
    return (lambda n: list(spread(n))), 3


@kind
def coroutines_as_helpers():
    return run_async, 3


@kind
def comprehensions():
    return comprehend, 5


@kind
def f_strings():
    return formatted, 5


@kind
def match_statement():
    return ((lambda: [matched(x) for x in ({"kind": "point", "at": [1, 2]}, [7], "a", 0)]),)


@kind
def exceptions_inside():
    return handled, 3


@kind
def walrus_in_comprehension():
    return walrus, [1, 2, 3]


@kind
def nonlocal_inside():
    return (counted,)


@kind
def global_statement():
    return (with_global,)


@kind
def imports_in_body():
    return imports_inside, "  aab"


@kind
def modules_by_name():
    return uses_modules, 2.5


@kind
def strings_over_lines():
    return (multi_line_string,)


@kind
def nested_functions():
    return deep, 1


@kind
def function_as_argument():
    return error_of, raises, "k"


@kind
def lambda_as_argument():
    return map_over, lambda x: x * RATE + 1, [1, 2]


def map_over(function, values):
    return [function(value) for value in values]


# --------------------------------------------------------- lambdas and closures

pair = lambda x: x + 1, lambda x: x - 1
twins = (lambda: 1, lambda: 1), (lambda x=1: x, lambda x=2: x)
# fmt: off
spread_out = (
    lambda x,
    y=2: (x  # a comment
          + y)
)
# fmt: on


def make_adder(amount):
    def add(x, *, times=1):
        return (x + amount) * times

    return add


def make_counter():
    count = [0]
    return lambda: count.append(1) or len(count)


def make_recursive():
    def down(n):
        return [n] if n == 0 else [n, *down(n - 1)]

    return down


def make_shared():
    value = 1

    def put(new):
        nonlocal value
        value = new

    def get():
        return value

    return put, get


def put_and_get(both):
    put, get = both
    put(5)
    return get()


@kind
def lambda_with_global():
    return (lambda x: x * RATE), 5


@kind
def second_lambda_on_a_line():
    return pair[1], 5


@kind
def first_lambda_on_a_line():
    return pair[0], 5


@kind
def equal_lambdas_on_a_line():
    return ((lambda: [f() for two in twins for f in two]),)


@kind
def lambda_over_lines():
    return spread_out, 5


@kind
def lambda_in_a_call():
    return functools.partial(sorted, key=lambda word: (len(word), word[::-1])), ["bb", "a", "ab"]


@kind
def closure_over_data():
    return functools.partial(make_adder(10), times=2), 1


@kind
def closure_over_mutable():
    return (make_counter(),)


@kind
def closure_over_itself():
    return make_recursive(), 2


@kind
def closures_that_share_a_variable():
    return put_and_get, make_shared()


@kind
def closure_over_object():
    point = Point(1, 2)
    return (lambda x: point.x + x + point.norm()), 3


@kind
def closure_as_result():
    return make_adder, 10


AFTER["closure_as_result"] = lambda add: add(5, times=2)


@kind
def class_as_result():
    return make_local_class, 2


AFTER["class_as_result"] = lambda cls: cls(3).scaled()


# -------------------------------------------------------------------- decorators


def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return "logged", function(*args, **kwargs)

    return wrapper


def repeated(times):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args):
            return [function(*args) for _ in range(times)]

        return wrapper

    return decorate


@logged
def decorated(x):
    return x + RATE


@logged
@repeated(times=2)
@logged
def thrice(x):
    return x


@contextlib.contextmanager
def managed(x):
    SEEN.append(x)
    yield x + 1


@functools.lru_cache(maxsize=8)
def cached(n):
    return n if n < 2 else cached(n - 1) + cached(n - 2)


@functools.singledispatch
def dispatched(x):
    return "any", x


@dispatched.register
def _(x: int):
    return "int", x * RATE


@dispatched.register(list)
def _(x):
    return [dispatched(each) for each in x]


@deftask
def marked(width, height=1):
    return width * height


@kind
def own_decorator():
    return decorated, 1


@kind
def decorators_with_arguments():
    return thrice, 1


@kind
def decorator_of_the_standard_library():
    return use_managed, 1


def use_managed(x):
    with managed(x) as y:
        return y


@kind
def lru_cache():
    return cached, 20


@kind
def single_dispatch():
    return dispatched, [1, "x", [2]]


@kind
def single_dispatch_by_way_of_another():
    return by_dispatch, [1, "x", [2]]


def by_dispatch(x):
    return dispatched(x), dispatched.__name__


@kind
def single_dispatch_method():
    return Shape().area, 2


@kind
def single_dispatch_method_by_way_of_another():
    return by_method, 2


def by_method(x):
    return Shape().area(x), Shape().area(str(x)), Shape.area(Shape(), x)


@kind
def single_dispatch_method_that_no_name_leads_to():
    return Flat().above(), 2


class Shape:
    @functools.singledispatchmethod
    def area(self, x):
        return "any", x

    @area.register
    def _(self, x: int):
        return "int", x


class Flat(Shape):
    def area(self, x):
        return "flat", x

    def above(self):
        return super().area


@kind
def deftask_decorator():
    return marked, 3, 4


@kind
def deftask_source_statements():
    return deftask_source(
        """
        import math

        def area(r):
            return round(helper(r), 3)

        def helper(r):
            return math.pi * r ** 2
        """,
        name="area",
    ), 2


SHIPS["deftask_source_statements"] = 12.566


@kind
def deftask_source_expression():
    return deftask_source("lambda p, q: p + q"), 1, 2


SHIPS["deftask_source_expression"] = 3


# ----------------------------------------------------------------------- classes


@dataclasses.dataclass(order=True)
class Point:
    """A point."""

    x: int
    y: int = 0
    tags: list[str] = dataclasses.field(default_factory=list)

    def norm(self) -> int:
        return self.x**2 + self.y**2

    @property
    def swapped(self) -> Point:
        return Point(self.y, self.x)

    @classmethod
    def origin(cls) -> Point:
        return cls(0, 0)

    @staticmethod
    def double(n: int) -> int:
        return double(n)


class Base(abc.ABC):
    scale = 2

    def __init__(self, value):
        self.__value = value

    @abc.abstractmethod
    def name(self): ...

    def scaled(self):
        return self.__value * self.scale * RATE


class Derived(Base):
    def name(self):
        return "derived"

    def scaled(self):
        return super().scaled() + 1


class Slotted:
    __slots__ = ("a", "__b")

    def __init__(self, a, b):
        self.a = a
        self.__b = b

    def __eq__(self, other):
        return (self.a, self.__b) == (other.a, other.__b)

    __hash__ = None


class Colour(enum.Enum):
    RED = 1
    GREEN = 2

    def other(self):
        return Colour.GREEN if self is Colour.RED else Colour.RED


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


Level = enum.IntEnum("Level", "LOW HIGH")
Pair = collections.namedtuple("Pair", "left right", defaults=[9])


class Row(NamedTuple):
    key: str
    value: int = 1

    def total(self):
        return len(self.key) + self.value


class Stack(Generic[T]):
    limit = 3

    def __init__(self) -> None:
        self.items: list[T] = []

    def push(self, item: T) -> Stack[T]:
        self.items.append(item)
        return self


class Meta(type):
    def __new__(mcs, name, bases, space, **options):
        made = super().__new__(mcs, name, bases, space)
        made.options = options
        return made


class WithMeta(metaclass=Meta, answer=42):
    def get(self):
        return type(self).options["answer"]


class Tree:
    """Names itself."""

    def __init__(self, *children):
        self.children = children

    def size(self):
        return 1 + sum(child.size() for child in self.children)

    def grown(self):
        return Tree(*self.children, Tree())

    def __eq__(self, other):
        return self.children == other.children

    __hash__ = None


class OwnError(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Outer:
    class Inner:
        def get(self):
            return RATE

    def inner(self):
        return Outer.Inner()


class Changed:
    rate = 1

    def get(self):
        return self.rate, self.added()


def _added(self):
    return self.rate + RATE


Changed.rate = 7
Changed.added = _added


def make_local_class(factor):
    class Local:
        def __init__(self, value):
            self.value = value

        def scaled(self):
            return self.value * factor, type(self) is Local

    class Child(Local):
        def scaled(self):
            return super().scaled()

    return Child


@kind
def dataclass_methods():
    return (lambda p: (p.norm(), p.swapped, Point.origin(), Point.double(4))), Point(1, 2)


@kind
def dataclass_sorted():
    return sorted, [Point(2), Point(1, 3, ["t"]), Point(1)]


@kind
def bound_method():
    return (Point(3, 4).norm,)


@kind
def class_as_function():
    return Point, 5


@kind
def unbound_and_static_methods():
    return (lambda f, g: (f(Point(1, 1)), g(8))), Point.norm, Point.double


@kind
def class_method():
    return (Point.origin,)


@kind
def abstract_base_super_private_names():
    return (lambda d: (d.scaled(), d.name(), isinstance(d, Base))), Derived(5)


@kind
def slots():
    return (lambda s: (s, s == Slotted(1, 2))), Slotted(1, 2)


AFTER["slots"] = lambda pair: (pair[0] == Slotted(1, 2), type(pair[0]) is Slotted, pair[1])


@kind
def enum_members():
    return (lambda c: (c, c.other(), c is Colour.RED, Access.READ | Access.WRITE)), Colour.RED


AFTER["enum_members"] = lambda found: (
    found[0] is Colour.RED,
    found[1] is Colour.GREEN,
    found[2],
    found[3] is Access.READ | Access.WRITE or found[3] == Access.READ | Access.WRITE,
)


@kind
def enum_made_by_a_call():
    return ((lambda: (Level.HIGH, int(Level.LOW))),)


@kind
def namedtuples():
    return (lambda p, r: (p, Pair(1), r.total(), r._replace(value=5))), Pair(1, 2), Row("ab")


@kind
def generic_class():
    return ((lambda: (Stack[int]().push(1).items, Stack.limit)),)


@kind
def metaclass():
    return ((lambda: WithMeta().get()),)


@kind
def class_that_names_itself():
    return (lambda tree: (tree.size(), tree.grown())), Tree(Tree(), Tree(Tree()))


@kind
def own_exception():
    return own_exception_code, 5


def own_exception_code(code):
    try:
        raise OwnError(code)
    except OwnError as error:
        return error.code


@kind
def nested_class():
    return ((lambda: (Outer().inner().get(), type(Outer().inner()) is Outer.Inner)),)


@kind
def class_changed_after_its_definition():
    return ((lambda: Changed().get()),)


@kind
def local_class():
    return (lambda cls: cls(3).scaled()), make_local_class(5)


@kind
def class_in_the_function():
    return class_inside, 4


def class_inside(n):
    @dataclasses.dataclass
    class Inside:
        n: int

        def twice(self):
            return self.n * 2

    return Inside(n).twice()


def with_extra(cls):
    cls.extra = lambda self: ("extra", self.n)
    return cls


@with_extra
@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    n: int = RATE


class CountCalls:
    """A decorator that is an object."""

    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.function = function
        self.calls = 0

    def __call__(self, *args):
        self.calls += 1
        return self.calls, self.function(*args)


@CountCalls
def counting(x):
    return x + RATE


@functools.total_ordering
class Ordered:
    registry: typing.ClassVar[dict[str, type]] = {}

    def __init_subclass__(cls, **more):
        cls.registry[cls.__name__] = cls

    def __init__(self, n):
        self.n = n

    def __eq__(self, other):
        return self.n == other.n

    def __lt__(self, other):
        return self.n < other.n

    __hash__ = None

    @functools.cached_property
    def square(self):
        return self.n**2

    @property
    def value(self):
        return self.n

    @value.setter
    def value(self, n):
        self.n = n

    added = functools.partialmethod(pow, 2)


class SubOrdered(Ordered):
    pass


class Options(typing.TypedDict):
    level: int


class Sized(typing.Protocol):
    def size(self) -> int: ...


@kind
def frozen_slots_and_class_decorator():
    return (lambda f: (f, f.extra(), Frozen())), Frozen(1)


@kind
def decorator_that_is_an_object():
    return counting, 1


AFTER["decorator_that_is_an_object"] = lambda found: found[1]


@kind
def decorators_of_the_standard_library_in_a_class():
    return use_ordered, Ordered(2)


def use_ordered(one):
    one.value = 3
    return one >= Ordered(3), one.square, one.value, sorted(Ordered.registry), SubOrdered(4).n


@kind
def typing_classes():
    return ((lambda: (Options(level=1), Options.__total__, Sized.__name__)),)


# --------------------------------------------------------------------- data, by name


@kind
def builtin_function():
    return math.gcd, 12, 18


@kind
def operator_by_name():
    return operator.itemgetter(1, 0), "ab"


@kind
def partial_of_own():
    return functools.partial(make_adder(1), times=3), 4


@kind
def data_of_many_types():
    return data_back, {
        "bytes": b"\0\xff",
        "array": bytearray(10),
        "date": datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc),
        "decimal": decimal.Decimal("1.10"),
        "path": pathlib.PurePosixPath("a/b"),
        "pattern": re.compile("a+", re.IGNORECASE),
        "ordered": collections.OrderedDict(b=1, a=2),
        "counter": collections.Counter("aab"),
        "default": collections.defaultdict(list, a=[1]),
        "deque": collections.deque([1], maxlen=3),
        "complex": 1 + 2j,
        "range": range(1, 9, 2),
        "big": 10**40,
        "types": (int, list[int], collections.abc.Mapping),
    }


def data_back(data):
    return data


@kind
def path_and_large_bytes():
    return (lambda p, b: (p / "x", len(b), b[-1])), pathlib.Path("a"), bytes(200_000)


@kind
def typing_objects():
    return ((lambda: (typing.Optional[int], list[str], T.__name__)),)


AFTER["typing_objects"] = lambda found: (str(found[0]), found[1], found[2])


@kind
def iterators():
    return ((lambda: list(itertools.islice(itertools.count(5), 3))),)


# ------------------------------------------------------------------- what cannot travel

exec("def no_source(x):\n    return x\n")
exec("made_lambda = lambda: RATE")
NoStatement = type("NoStatement", (), {"get": lambda self: 1})


@kind
def function_from_exec():
    return no_source, 1


@kind
def helper_from_exec():
    return ((lambda: made_lambda()),)


@kind
def code_object():
    return (lambda code: code.co_name), double.__code__


@kind
def class_without_a_statement():
    return ((lambda: NoStatement().get()),)


REFUSED |= {"function_from_exec", "helper_from_exec", "code_object"}
MAY_BE_REFUSED.add("class_without_a_statement")


@kind
def function_that_newer_pythons_have():
    return getattr(math, "cbrt", math.sqrt), 27


@kind
def exception_that_newer_pythons_have():
    group = getattr(__builtins__, "ExceptionGroup", None)
    return (lambda kind: kind.__name__), group or ValueError


MAY_BE_REFUSED |= {"function_that_newer_pythons_have", "exception_that_newer_pythons_have"}


# ------------------------------------------------------------------------- running them


def outcome(name: str, future: Any, local: Any) -> str:
    """Judge what came of a kind."""
    try:
        value = future.result(60)
    except CannotShip as error:
        words = f"CannotShip: {error}"
        return words if name in REFUSED | MAY_BE_REFUSED else f"refused: {error}"
    except BaseException as error:
        return f"{type(error).__module__}.{type(error).__qualname__}: {error}"
    if name in REFUSED:
        return f"it was sent, and gave {value!r}"
    after = AFTER.get(name, lambda found: found)
    try:
        value = after(value)
        wanted = SHIPS[name] if name in SHIPS else after(local())
    except BaseException as error:
        return f"the result is broken: {type(error).__qualname__}: {error}"
    if type(value) is not type(wanted) or value != wanted:
        return f"wrong: {value!r} in place of {wanted!r}"
    return "right"


def main(address: str, names: list[str]) -> None:
    """Submit all kinds, and print what came of them."""
    outcomes = {}
    with FarmExecutor(addresses=[address]) as ex:
        ex.wait_for_workers(1, timeout=60)
        foreign = any("source" in line for line in ex.status().servers[0].differences)
        for name in names or KINDS:
            if not foreign and name in REFUSED:
                continue
            function, *args = KINDS[name]()
            future = ex.submit(function, *args)
            outcomes[name] = outcome(name, future, functools.partial(function, *args))
    print(json.dumps({"foreign": foreign, "outcomes": outcomes}))


if __name__ == "__main__" and __spec__ is None:  # not where a test loads it
    main(sys.argv[1], sys.argv[2:])
