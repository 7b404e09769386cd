"""What names of the client's ``__main__`` mean in a worker: programs in two interpreters."""

from __future__ import annotations

from textwrap import dedent

import pytest

from remote_executor.errors import PayloadError
from remote_executor.payload.code import namespace
from tests.support.payload_tasks import run_main

MORE = {
    "objects of a library whose own way is to name themselves": """
        from tests.support.payload_tasks import NamesItself, Asking
        import functools
        def work(x): return x * 2
        work = functools.update_wrapper(NamesItself(work), work)
        class Api:
            get = Asking(5)
        def task(): return work(2), work.calls, Api.get.held, Api().get.held
        with Worker() as worker: assert worker.call(task) == (4, 1, 5, 5)
        """,
    "an object that looks itself up while it is loaded is refused": """
        import operator
        class Odd:
            def __reduce__(self): return operator.attrgetter("odd"), (__import__("__main__"),)
        odd = Odd()
        def task(): return odd
        with Worker() as worker:
            try: worker.call(task)
            except Exception as error: assert "'odd'" in str(error), error
            else: raise AssertionError
        """,
    "a module made by hand that a task imports": """
        import sys, types
        made = types.ModuleType("made_up")
        made.level = 5
        exec("class Thing:\\n    x = 3\\n", vars(made))
        sys.modules["made_up"] = made
        def task():
            import made_up
            return made_up.level
        with Worker() as worker:
            assert worker.call(task) == 5
            made.level = 6
            assert worker.call(task) == 6
            assert worker.call(lambda thing: thing.x, made.Thing()) == 3
        """,
    "attributes that a base class does not pickle": """
        import datetime, decimal, fractions
        class Day(datetime.date): pass
        class Price(decimal.Decimal): pass
        class Part(fractions.Fraction): pass
        class Own(datetime.date):
            def __reduce__(self): return Own, (2000, 1, 1)
        class Odd(dict): pass
        made = [Day(2020, 1, 2), Price("1.5"), Own(2020, 1, 2), Odd(a=1)]
        for each in made: each.note = [type(each).__name__]
        def task(): return [getattr(each, "note", None) for each in made], made[0].day, made[3]
        with Worker() as worker:
            assert worker.call(task) == ([["Day"], ["Price"], None, ["Odd"]], 2, {"a": 1})
            made[0].note.append(1)
            assert worker.call(task)[0][0] == ["Day", 1]
        """,
    "attributes deleted from an enum and its members": """
        import enum
        class Mode(enum.Enum):
            A = 1
        Mode.label, Mode.A.weight = "x", 3
        def look():
            return getattr(Mode, "label", None), getattr(Mode.A, "weight", None), Mode.A.value
        def add(): Mode.mine = Mode.A.mine = 1
        def mine(): return Mode.mine, Mode.A.mine
        for kind in Worker, OtherWorker:
            Mode.label, Mode.A.weight = "x", 3
            with kind() as worker:
                assert worker.call(look) == ("x", 3, 1)
                worker.call(add)
                del Mode.label, Mode.A.weight
                assert worker.call(look) == (None, None, 1)
                assert worker.call(mine) == (1, 1)
        """,
    "a stand-in says of which type it stands for one": """
        import socket, threading
        s, lock = socket.socket(), threading.Lock()
        s.close()
        def task():
            return isinstance(s, socket.socket), type(s).__name__, isinstance(s, int), s is None
        def use(): return lock.locked()
        with Worker() as worker:
            assert worker.call(task) == (True, "socket", False, False)
            try: worker.call(use)
            except Exception as error: assert "global 'lock'" in str(error), error
            else: raise AssertionError
        """,
    "a partial is a member of an enum on any Python": """
        import enum, functools
        member = getattr(enum, "member", lambda value: value)  # from some Python on it is none else
        class Op(enum.Enum):
            ADD = member(functools.partial(lambda a, b: a + b))
            MORE = member(functools.partial(lambda a, b: a * b))
        def task(): return [each.value(2, 3) for each in Op]
        with Worker() as worker: assert worker.call(task) == [5, 6]
        """,
}

IDENTITY = {
    "a default": """
        M = object()
        def task(d=M, *, k=M): return d is M and k is M
        with Worker() as worker: assert worker.call(task)
        """,
    "a default of a helper": """
        M = [1]
        def helper(d=M): return d is M
        def task(): return helper()
        with Worker() as worker: assert worker.call(task)
        """,
    "a captured variable": """
        M = object()
        def make():
            m = M
            return lambda: m is M
        with Worker() as worker:
            assert worker.call(make())
            task = make()
            assert worker.call(task)
        """,
    "containers and objects": """
        class Service: pass
        config = {"a": 1}
        service = Service()
        service.config = config
        table = {"x": [config]}
        pair = (config, 1)
        def task():
            config["a"] += 1
            return service.config is config and table["x"][0] is config and pair[0] is config
        with Worker() as worker:
            assert worker.call(task)
            config["a"] = 7
            assert worker.call(task)
            assert worker.call(lambda: service.config["a"]) == 8
        """,
    "functions as keys": """
        def add(a, b): return a + b
        NAMES = {add: "plus"}
        TABLE = {"+": add}
        def task(): return NAMES[add], TABLE["+"] is add
        with Worker() as worker: assert worker.call(task) == ("plus", True)
        """,
    "classes in tables": """
        class A: pass
        class B(A): pass
        KINDS = {A: "a", B: "b"}
        def task(x): return KINDS[type(x)], type(x) is B
        with Worker() as worker: assert worker.call(task, B()) == ("b", True)
        """,
    "two closures over one variable": """
        def make():
            count = 0
            def put(x):
                nonlocal count
                count = x
            def get(): return count
            return put, get
        put, get = make()
        def task():
            put(3)
            return get()
        with Worker() as worker: assert worker.call(task) == 3
        """,
    "closures given as arguments": """
        def make():
            count = 0
            def put(x):
                nonlocal count
                count = x
            def get(): return count
            return put, get
        def task(put, get):
            put(3)
            return get()
        with Worker() as worker: assert worker.call(task, *make()) == 3
        """,
    "an unnamed list in two globals": """
        def make():
            shared = []
            return [shared], {"s": shared}
        one, other = make()
        def first(): return len(one)
        def task(): return one[0] is other["s"]
        with Worker() as worker:
            assert worker.call(first) == 1  # one of them is there already
            assert worker.call(task)
        """,
    "globals that lead to each other": """
        class Node: pass
        a, b = Node(), Node()
        a.next, b.next = b, a
        def task(): return a.next is b and b.next is a
        with Worker() as worker: assert worker.call(task)
        """,
    "a function in a circle with a table": """
        TABLE = {}
        def task(t=TABLE): return t is TABLE and TABLE["task"] is task
        TABLE["task"] = task
        with Worker() as worker: assert worker.call(task)
        """,
    "aliases": """
        config = {"a": 1}
        same = config
        def f(): return 1
        g = f
        def task(): return same is config and g is f
        with Worker() as worker: assert worker.call(task)
        """,
    "sentinels in classes": """
        MISSING = object()
        class Field:
            default = MISSING
            def get(self, d=MISSING): return d is MISSING and self.default is MISSING
        def task(): return Field().get()
        with Worker() as worker:
            assert worker.call(task)
            assert worker.call(Field().get)
        """,
    "a method and its object": """
        class Box:
            def same(self, other): return self is other
        box = Box()
        with Worker() as worker:
            assert worker.whole(box.same, box)
            import functools
            assert worker.whole(functools.partial(Box.same, box), box)
        """,
}

STALE = {
    "attributes, defaults and code of a helper": """
        def helper(x=1, *, k=1): return helper.level, x, k
        helper.level = 1
        def task(): return helper()
        with Worker() as worker:
            assert worker.call(task) == (1, 1, 1)
            helper.level = 2
            assert worker.call(task) == (2, 1, 1)
            helper.__defaults__ = (2,)
            assert worker.call(task) == (2, 2, 1)
            helper.__kwdefaults__["k"] = 3
            assert worker.call(task) == (2, 2, 3)
            helper.__code__ = (lambda x=1, *, k=1: "code").__code__
            assert worker.call(task) == "code"
            del helper.level
            assert worker.call(lambda: hasattr(helper, "level")) is False
        """,
    "a captured variable of a helper": """
        def make():
            level = 1
            def helper(): return level
            def put(x):
                nonlocal level
                level = x
            return helper, put
        helper, put = make()
        def task(): return helper()
        with Worker() as worker:
            assert worker.call(task) == 1
            put(2)
            assert worker.call(task) == 2
        """,
    "class attributes": """
        import array, collections
        class Own: level = 1
        class Config:
            queue = collections.deque()
            numbers = array.array("i", [1])
            own = Own()
            lists = ([1],)
            extra = 1
        def task(): return (len(Config.queue), sum(Config.numbers), Config.own.level,
                            Config.lists[0][0], hasattr(Config, "extra"))
        with Worker() as worker:
            assert worker.call(task) == (0, 1, 1, 1, True)
            Config.queue.append(1)
            Config.numbers.append(2)
            Config.own.level = 4
            Config.lists[0][0] = 5
            del Config.extra
            assert worker.call(task) == (1, 3, 4, 5, False)
        """,
    "what refers to a value that has changed": """
        class Service: pass
        config = {"a": 1}
        service = Service()
        service.config = config
        def task(): return service.config["a"]
        with Worker() as worker:
            assert worker.call(task) == 1
            config["a"] = 2
            assert worker.call(task) == 2
        """,
    "a name that is deleted": """
        X = 1
        def task():
            try: return X
            except NameError: return "no X"
        with Worker() as worker:
            assert worker.call(task) == 1
            del X
            assert worker.call(task) == "no X"
            X = 2
            assert worker.call(task) == 2
        """,
    "a built-in that is shadowed": """
        def task(): return len([1])
        with Worker() as worker:
            assert worker.call(task) == 1
            len = lambda x: "mine"
            assert worker.call(task) == "mine"
            del len
            assert worker.call(task) == 1
        """,
    "a module made by hand": """
        import types, sys
        helpers = types.ModuleType("helpers")
        sys.modules["helpers"] = helpers
        exec("def f(): return LEVEL\\nLEVEL = 1", vars(helpers))
        def task():
            import helpers as again
            return helpers.f(), again is helpers
        with Worker() as worker:
            assert worker.call(task) == (1, True)
            helpers.LEVEL = 2
            assert worker.call(task) == (2, True)
        """,
    "annotations, doc and bases": """
        class A: who = "A"
        class B: who = "B"
        class C(A): x: int
        def helper(x: int): "one"
        def task(): return helper.__doc__, helper.__annotations__, C.who
        with Worker() as worker:
            assert worker.call(task) == ("one", {"x": int}, "A")
            helper.__doc__ = "two"
            helper.__annotations__["x"] = str
            C.__bases__ = (B,)
            assert worker.call(task) == ("two", {"x": str}, "B")
        """,
}

LOADING = {
    "an object whose rebuilding names a class": """
        class Handle:
            def __init__(self, x): self.x = x
            def __reduce__(self): return rebuild, (self.x,)
        def rebuild(x): return Handle(x)
        a_handle = Handle(5)
        def task(): return a_handle.x, type(a_handle) is Handle
        with Worker() as worker: assert worker.call(task) == (5, True)
        """,
}

SET_BACK = {
    "a class attribute": """
        class Config:
            value = None
            other = 1
        def initialize(v): Config.value = v
        def task(): return Config.value, Config.other
        with Worker() as worker:
            worker.call(initialize, 5)
            assert worker.call(task) == (5, 1)
            assert worker.call(lambda: Config.value) == 5
            Config.other = 2
            assert worker.call(task) == (5, 2)
            Config.value = 6
            assert worker.call(task) == (6, 2)
        """,
    "a dict in a class, an object, a default": """
        class Config: data = {}
        class Own: pass
        own = Own()
        def initialize():
            Config.data["a"] = 1
            own.level = 3
        def collect(x, into=[]):
            into.append(x)
            return list(into)
        def task(): return Config.data["a"], own.level
        with Worker() as worker:
            worker.call(initialize)
            assert worker.call(task) == (1, 3)
            assert worker.call(collect, 1) == [1]
            assert worker.call(collect, 2) == [1, 2]
        """,
    "a method": """
        class Config:
            def get(self): return "home"
        def initialize(): Config.get = lambda self: "worker"
        def task(): return Config().get()
        with Worker() as worker:
            worker.call(initialize)
            assert worker.call(task) == "worker"
        """,
}


CONVERSIONS = {
    "views, proxies, code, streams and accessors that names have": """
        import functools, sys, types
        table = {"a": 1}
        keys, proxy = table.keys(), types.MappingProxyType(table)
        code = compile("x + 1", "<expr>", "eval")
        out = sys.stderr
        p, s, c = property(lambda self: 5), staticmethod(len), functools.cached_property(id)
        made = types.FunctionType(compile("lambda x: x + 5", "<m>", "eval").co_consts[0], globals())
        class A: pass
        A.p, A.s = p, s
        def task():
            table["b"] = 2
            assert out is sys.stderr and type(c) is functools.cached_property
            kinds = type(keys).__name__, type(proxy).__name__
            return kinds, list(keys), proxy["b"], eval(code, {"x": 2}), A().p, A.s([1]), made(1)
        with Worker() as worker:
            expected = ("dict_keys", "mappingproxy"), ["a", "b"], 2, 3, 5, 1, 6
            assert worker.call(task) == expected
        """,
    "a captured variable that a name has is that of its functions": """
        def make():
            x, unset = 1, 0
            def get(): return x, unset
            def put(value):
                nonlocal x
                x = value
            del unset
            return get, put
        get, put = make()
        cell = get.__closure__[1]
        cells = get.__closure__
        lone = (lambda y: lambda: y)(4).__closure__[0]
        def task():
            put(cell.cell_contents + 1)
            try:
                cells[0].cell_contents
            except ValueError:
                return cell.cell_contents, cells[1] is cell, lone.cell_contents
        with Worker() as worker:
            assert worker.call(task) == (2, True, 4)
            lone.cell_contents = 9
            assert worker.call(task)[2] == 9
        """,
}

PROGRAMS = {**CONVERSIONS, **IDENTITY, **STALE, **LOADING, **SET_BACK}


@pytest.mark.parametrize("name", MORE)
def test_more_in_two_processes(name, tmp_path):
    assert run_main(dedent(MORE[name]), tmp_path) == ""


def test_what_the_client_has_loaded_of_a_package_is_loaded_when_it_is_wanted(tmp_path):
    for name, text in {"__init__": "", "part": "VALUE = 3", "other": ""}.items():
        (tmp_path / "own_package").mkdir(exist_ok=True)
        (tmp_path / "own_package" / f"{name}.py").write_text(text, "utf-8")
    script = """
        import own_package.part
        def task(name): return getattr(own_package, name).VALUE
        with Worker() as worker:
            assert worker.call(task, "part") == 3
            for name in "other", "nothing":
                try: worker.call(task, name)
                except AttributeError as error: assert f"no attribute '{name}'" in str(error)
                else: raise AssertionError
        """
    assert run_main(dedent(script), tmp_path) == ""


@pytest.mark.parametrize("name", PROGRAMS)
def test_in_two_processes(name):
    assert run_main(dedent(PROGRAMS[name])) == ""


def test_a_module_of_the_client_that_is_not_here_is_named():
    with pytest.raises(PayloadError, match=r"'x' of module 'no_such_module'"):
        namespace.import_attribute("no_such_module", "x")
    with pytest.raises(PayloadError, match="module 'no_such_module'"):
        namespace.module_space("no_such_module", None)


def test_plain_data_of_a_module_that_is_not_here_is_a_copy():
    import pickle

    assert namespace.import_attribute("no_such_module", "x", pickle.dumps([1])) == [1]
    space = namespace.module_space("no_such_module", {"x": pickle.dumps(2)})
    assert (space["x"], space["__name__"]) == (2, "no_such_module")
    assert namespace.module_space("no_such_module", {}) is space


def test_an_attribute_that_nobody_has_is_no_attribute(monkeypatch):
    main = namespace.MainModule("__main__")
    monkeypatch.setattr(namespace, "_ask", None)
    with pytest.raises(AttributeError, match="module '__main__' has no attribute 'x'"):
        main.x  # noqa: B018
    asked = []
    monkeypatch.setattr(namespace, "_ask", asked.append)
    assert not hasattr(main, "x")
    assert not hasattr(main, "__path__")
    assert asked == ["x", "__getattr__"]


def test_a_pickle_that_looks_itself_up_is_refused():
    import pickle

    body = pickle.dumps((), 5)
    opening = namespace._Opening([(("x",), b"t", body, [], (0,))])
    opening._open.add("x")

    with pytest.raises(PayloadError, match="looks itself up in __main__"):
        opening.resolve("x")


def test_who_looks_at_all_of_main_has_it_whole_first(monkeypatch):
    import pickle

    main = namespace.MainModule("__main__")
    space = namespace._plain_dict(main)
    monkeypatch.setattr(namespace.mains, "namespace", lambda: space)
    monkeypatch.setattr(namespace, "asked", {})
    questions = []

    def ask(name):
        questions.append(name)
        return pickle.dumps(_Brings(), 5), []

    monkeypatch.setattr(namespace, "_ask", ask)
    assert not hasattr(main, "__path__")
    space["mine"] = 1
    assert "brought" in dir(main)
    assert vars(main) is space
    assert main.__dict__["brought"] == 5
    assert questions == [namespace.WHOLE, "__dir__"]
    namespace.forget_asked()
    assert "brought" not in space  # it was right for that task only
    assert space["mine"] == 1
    assert "brought" in vars(main)
    assert questions == [namespace.WHOLE, "__dir__", namespace.WHOLE]


def test_who_looks_while_something_is_loaded_has_what_is_there(monkeypatch):
    """As SQLAlchemy does when a class statement runs: that class must not be made once more."""
    main = namespace.MainModule("__main__")
    monkeypatch.setattr(namespace, "asked", {})
    monkeypatch.setattr(namespace, "_ask", lambda name: pytest.fail("it is asked for"))
    monkeypatch.setattr(namespace, "_opening", {"User"})
    assert "User" not in vars(main)


class _Brings:
    def __reduce__(self):
        return namespace.bind, ("brought", 5)


def test_a_mains_own_dir_is_asked(monkeypatch):
    main = namespace.MainModule("__main__")
    monkeypatch.setattr(namespace, "_ask", None)
    main.__dir__ = lambda: ["own"]
    assert dir(main) == ["own"]


def test_what_a_task_has_asked_for_in_vain_is_forgotten(monkeypatch):
    main = namespace.MainModule("__main__")
    monkeypatch.setattr(namespace, "_ask", lambda name: None)
    monkeypatch.setattr(namespace, "asked", {})
    assert not hasattr(main, "x")
    assert "__getattr__" in namespace.asked

    namespace.forget_asked()

    assert namespace.asked == {}
