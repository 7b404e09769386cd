"""The source of a function is found, and surely its own; or it is said why not."""

from __future__ import annotations

import functools
import linecache
import os
import sys
import types

import pytest

from remote_executor import deftask as exported
from remote_executor.errors import CannotShip
from remote_executor.payload import finder, source
from remote_executor.payload.captures import facts
from remote_executor.payload.finder import (
    check_syntax,
    class_source,
    deftask,
    function_recipe,
)
from remote_executor.payload.source import compile_recipe, compiled


@pytest.fixture
def module(tmp_path):
    """Return a function that makes a module of a text, and its file's path."""
    made = []

    def make(text, name="made_by_a_test", path="made.py"):
        where = tmp_path / path
        where.write_text(text)
        linecache.checkcache(str(where))
        result = types.ModuleType(name)
        result.__file__ = str(where)
        exec(compile(text, str(where), "exec", dont_inherit=True), result.__dict__)
        sys.modules[name] = result
        made.append(name)
        return result

    yield make
    for name in made:
        sys.modules.pop(name, None)


def again(function, **cells):
    """Make a function anew from its recipe."""
    recipe = function_recipe(function)
    made = source.make_function(
        recipe,
        function.__globals__,
        {name: types.CellType(value) for name, value in cells.items()},
    )
    made.__defaults__, made.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    return made


def names(code):
    return facts(code).names


def test_a_function_is_the_same_again_with_its_lines(module):
    made = module("\n\ndef f(x, y=2):\n    'Say.'\n    return x + y\n")

    assert again(made.f)(1) == 3
    assert again(made.f).__code__ == made.f.__code__
    assert function_recipe(made.f) is function_recipe(made.f)


@pytest.mark.parametrize("indent", ["    ", "\t", " ", "  "])
def test_any_indentation_will_do(module, indent):
    made = module(
        """
class P:
    def f(self):
        return self.__x, '''
        kept
    kept''', (
1)
def outer(a):
    class Q:
        def f(self):
            return a, self.__x, '''
        kept'''
    return Q
if 1:
    def g(): return 1
    class R: pass
""".replace("    ", indent)
    )
    p, q = made.P(), made.outer(5)()
    p._P__x = q._Q__x = 3

    assert again(made.P.f)(p) == made.P.f(p)
    assert again(type(q).f, a=5)(q) == type(q).f(q)
    assert again(made.g)() == 1
    for cls in (made.P, type(q), made.R):
        found = class_source(cls, names)
        assert compile_recipe(found.recipe) is not None


def test_lambdas_on_one_line_are_told_apart(module):
    """The one is not the other: by their code, columns or not."""
    made = module(
        "one, other = lambda x: x + 1, lambda x: x - 1\n"
        "nested = lambda x: (lambda x: (lambda x: x * 2)(x) + 1)\n"
        "wide = {'é': lambda: 'é', 'ü': lambda: ('ü',\n   'ö')}\n"
        "plus = lambda f=lambda: 3: f()\n"
    )

    assert [again(each)(1) for each in (made.one, made.other)] == [2, 0]
    assert again(made.nested)(3)(4) == 9
    assert again(made.nested(3))(4) == 9
    assert [again(each)() for each in made.wide.values()] == ["é", ("ü", "ö")]
    assert again(made.plus)() == 3
    assert again(made.plus.__defaults__[0])() == 3


def test_columns_are_kept_for_tracebacks(module):
    made = module("def make():\n    return [lambda x: 1 / x]\n")
    (function,) = made.make()

    if sys.version_info >= (3, 11):
        assert list(again(function).__code__.co_positions()) == list(
            function.__code__.co_positions()
        )
    assert again(function).__code__.co_firstlineno == 2


def test_decorators_and_defaults_are_left_out(module):
    made = module(
        "import functools\n"
        "def deco(f): return f\n"
        "@deco\n"
        "@functools.wraps(\n  len)\n"
        "def f(x=[lambda: 1]):\n    return x\n"
        "@deco\nasync def g(): return 2\n"
    )

    assert again(made.f)(3) == 3
    assert "deco" not in function_recipe(made.f).text
    coroutine = again(made.g)()
    with pytest.raises(StopIteration, match="2"):
        coroutine.send(None)


def test_imports_of_the_module_do_not_matter(module):
    """From Python 3.12 on their calls are compiled in another way."""
    made = module(
        "import os.path as where, json\nfrom math import *\nfrom math import floor as down\n"
        "def f(x):\n    return where.basename(x), json.loads('1'), down(2.5)\n"
    )

    assert again(made.f)("a/b") == ("b", 1, 2)


def test_a_file_that_was_edited_is_not_taken_for_its_source(module):
    made = module("def f():\n    return 1\nclass C:\n    def g(self): return 1\n")
    linecache.clearcache()
    with open(made.__file__, "w") as file:
        file.write("def f():\n    return 22\nclass C:\n    def g(self): return 22\n")

    with pytest.raises(CannotShip) as caught:
        function_recipe(made.f)
    assert "f() cannot be sent from" in str(caught.value)
    assert "line 1, is not what runs: the file has changed since" in caught.value.reason
    assert "deftask_source()" in caught.value.cure
    with pytest.raises(CannotShip, match=r"class C .*the file has changed since"):
        class_source(made.C, names)


def test_a_file_that_was_edited_and_loaded_anew_is(module):
    made = module("def f():\n    return 1\n")
    linecache.getlines(made.__file__)
    before = os.stat(made.__file__)
    made = module("\ndef f():\n    return 22\n")
    # linecache still has the old lines; the module's time is enough for it to look again.
    linecache.cache[made.__file__] = (
        before.st_size,
        before.st_mtime - 1,
        ["def f():\n", "    return 1\n"],
        made.__file__,
    )

    assert again(made.f)() == 22


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (None, "cannot be read"),
        ("x = 1\n", "its source is not in"),
        ("def f(:\n", "cannot be read"),
        ("def f(): return [\n  1 for x in 3]\n", "is not what runs"),
    ],
)
def test_why_there_is_no_source_is_said(module, now, words):
    made = module("def f():\n    return 1\n")
    linecache.clearcache()
    os.remove(made.__file__)
    if now is not None:
        with open(made.__file__, "w") as file:
            file.write(now)

    with pytest.raises(CannotShip) as caught:
        function_recipe(made.f)
    assert words in caught.value.reason


def test_candidates_that_do_not_compile_are_no_source(module):
    made = module("\ndef f():\n    return 1\n")
    linecache.clearcache()
    with open(made.__file__, "w") as file:
        file.write("def outer(x):\n    def f():\n        nonlocal x\n        x = 1\n")

    with pytest.raises(CannotShip, match="is not what runs"):
        function_recipe(made.f)


def test_code_from_exec_has_no_source():
    space = {}
    exec("def f(): return 1", space)

    with pytest.raises(CannotShip, match="its source is not to be had"):
        function_recipe(space["f"])


def test_code_of_a_command_is_in_the_commands_text(monkeypatch):
    text = "x = 1\ndef f(): return x\n"
    space = {"__name__": "__main__"}
    exec(compile(text, "<string>", "exec", dont_inherit=True), space)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-I", "-c", text, "more"])

    assert again(space["f"])() == 1
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c"])
    assert finder._command("<string>", space) == []
    assert finder._command("<string>", {"__name__": "other"}) == []
    assert finder._command("a file", space) == []


def test_a_cell_of_a_notebook_has_its_source():
    name = "<cell of a test>"
    text = "class Cell:\n    pass\n\ndef f():\n    return 2"
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    space = {"__name__": "not.a.module"}
    try:
        exec(compile(text, name, "exec", dont_inherit=True), space)

        assert again(space["f"])() == 2
        assert class_source(space["Cell"], names).recipe.filename == name
    finally:
        del linecache.cache[name]


def test_a_notebook_compiles_each_statement_apart():
    """From Python 3.12 on calls of what is imported in the same piece are another code."""
    name = "<cell of a test>"
    text = (
        "import json\ndef f(): return json.loads('1')\n"
        "class C:\n    def g(self): return json.loads('2')\n"
    )
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    space = {"__name__": "not.a.module"}
    try:
        for node in finder.ast.parse(text).body:
            exec(compile(finder.ast.Module([node], []), name, "exec", dont_inherit=True), space)

        assert again(space["f"])() == 1
        assert class_source(space["C"], names) is not None
    finally:
        del linecache.cache[name]


def test_code_that_came_as_source_goes_on_as_source(monkeypatch):
    monkeypatch.setattr(source, "units", {})
    text = (
        "    def f(y):\n        def g(): return x + y\n        class C: pass\n        return g, C\n"
    )
    recipe = source.Recipe(
        "<elsewhere>",
        7,
        "def __outer__(x):\n",
        text,
        "",
        ("__outer__",),
        "f",
        "__outer__.<locals>.f",
        "there.f",
        0,
    )
    space = {"__name__": "not.a.module", "__builtins__": __builtins__}
    function = source.make_function(recipe, space, {"x": types.CellType(1)})
    linecache.cache.pop("<elsewhere>", None)
    g, cls = function(2)

    assert again(g, x=1, y=2)() == 3
    assert function_recipe(g).first == 8
    assert cls.__qualname__ == "there.f.<locals>.C"
    assert class_source(cls, names).recipe.filename == "<elsewhere>"


def test_lazy_annotations_of_the_module_are_kept(module):
    made = module(
        "from __future__ import annotations\n"
        "def f():\n    def g(x: nowhere): pass\n    return g.__annotations__\n"
        "class C:\n    x: nowhere\n    def f(self): pass\n"
    )

    assert again(made.f)() == {"x": "nowhere"}
    assert class_source(made.C, names).recipe.flags


def test_a_wrapped_name_does_not_matter(module):
    made = module(
        "import functools\ndef outer():\n    @functools.wraps(len)\n    def f():\n"
        "        def g(): return 'x.<locals>.y'\n        return g\n    return f\n"
    )

    assert again(made.outer())()() == "x.<locals>.y"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("lambda: 0.0", "lambda: -0.0"),
        ("lambda: 1", "lambda: True"),
        ("lambda x: x in {1, 2}", "lambda x: x in {1, 3}"),
        ("lambda: (1, 2)", "lambda: (1, 2, 3)"),
        ("lambda: (lambda: 1)", "lambda: (lambda: 2)"),
        ("lambda: 'a.<locals>.b'", "lambda: 'a.<locals>.c'"),
        ("lambda a: a", "lambda *a: a"),
    ],
)
def test_code_that_differs_is_told_apart(one, other):
    code, same, different = (eval(text).__code__ for text in (one, one, other))

    assert finder._alike(code, same)
    assert not finder._alike(code, different)


def test_constants_of_a_class_that_come_in_any_order_are_alike():
    """From Python 3.13 on there are such."""
    (body,) = (
        each
        for each in finder._codes(compile("class C: x = 1, 2", "", "exec"))
        if each.co_name == "C"
    )
    turned = body.replace(
        co_consts=tuple((2, 1) if each == (1, 2) else each for each in body.co_consts)
    )

    assert finder._alike(body, turned)
    assert not finder._alike(body, body.replace(co_consts=(None, *body.co_consts[1:])))


# ------------------------------------------------------------------------------ classes


def test_what_a_class_statement_needs_is_known(module):
    made = module(
        """
import enum
base, meta, default, later, deep, in_lambda = object, type, 1, 2, 3, 4
def deco(cls): return cls
@deco
class C(base, metaclass=meta):
    x: 'int' = default
    y = [deep for _ in range(2)]
    z = lambda: in_lambda
    class Inner:
        value = default
    def f(self, p=default): return later
"""
    )
    found = class_source(made.C, names)

    assert {"base", "meta", "default", "deep", "deco"} <= found.at_once
    assert {"later", "in_lambda"} <= set(found.names) - found.at_once
    assert found.span == (5, 12)


def test_a_local_class_has_its_bases_and_captured_variables(module):
    made = module(
        """
def outer(a, *args, b=1, **more):
    import os, sys as system
    from os import path
    try:
        pass
    except ValueError as error:
        pass
    class Base:
        x = 1
    class Child(Base):
        @property
        def f(self): return a, Child, __class__
        @staticmethod
        def g(): return b
    return Base, Child
def uses(value):
    class Uses:
        x = value
    return Uses
in_a_lambda = lambda z: type("No", (), {})
"""
    )
    base, child = made.outer(7)
    found = class_source(child, names)

    assert {name: cell.cell_contents for name, cell in found.cells.items()} == {
        "Base": base,
        "a": 7,
        "b": 1,
    }
    with pytest.raises(CannotShip, match=r"class uses.<locals>.Uses .*uses 'value', a variable of"):
        class_source(made.uses(1), names)
    assert finder._bound(finder.ast.parse("lambda a, *b: (c := a)").body[0].value) == set("abc")


def test_the_last_of_several_class_statements_counts(module):
    made = module(
        "if False:\n    class C:\n        def f(self): return 1\n"
        "else:\n    class C:\n        def f(self): return 2\n"
    )

    assert class_source(made.C, names).span == (5, 6)


def test_a_class_without_a_statement_has_none(module):
    made = module("C = type('Other', (), {})\n")
    gone = type("Gone", (), {"__module__": "not.there"})

    assert class_source(made.C, names) is None
    assert class_source(gone, names) is None


def test_methods_from_elsewhere_do_not_matter(module):
    made = module(
        "import functools\ndef late(self): return 1\nclass C:\n    x = property(late)\n"
        "    @functools.cached_property\n    def y(self): return 2\n"
        "C.z = late\n"
    )

    assert class_source(made.C, names) is not None


# ------------------------------------------------------------------------------ deftask


def test_deftask_records_the_source_when_the_function_is_defined_k7(module):
    """K7, L11, lfarm's deftask: whatever becomes of the file."""
    made = module(
        "from remote_executor import deftask\n"
        "def outer(a):\n    @deftask\n    def f(b=1, *, c=2): return a + b + c\n    return f\n"
    )
    function = made.outer(10)
    os.remove(made.__file__)
    linecache.clearcache()

    assert function() == 13
    assert again(function, a=10)() == 13
    assert exported is deftask


def test_deftask_says_at_once_what_it_cannot_do():
    space = {}
    exec("def f(): return 1", space)

    with pytest.raises(CannotShip, match="its source is not"):
        deftask(space["f"])
    for thing in (len, int, functools.partial(print)):
        with pytest.raises(TypeError, match="written in Python"):
            deftask(thing)


def test_syntax_can_be_judged_beforehand(module):
    made = module("\ndef f(x):\n    match x:\n        case 1: return 2\n")
    recipe = function_recipe(made.f)

    check_syntax(recipe, "cpython", tuple(sys.version_info[:2]))
    check_syntax(function_recipe(again), "cpython", (3, 9))
    with pytest.raises(CannotShip) as caught:
        check_syntax(recipe, "cpython", (3, 9))
    assert caught.value.theirs == "CPython 3.9"
    assert caught.value.function == "f"
    assert compiled(recipe) is not None


def test_the_code_of_a_decorated_function_begins_where_its_decorators_do(module):
    made = module(
        "import functools\n"
        "def keep(*_): return lambda f: f\n"
        "@keep(\n    1)\n@keep(2)\ndef f():\n    return 1\n"
        "class C:\n    @keep()\n\n    def m(self): return 2\n"
    )
    for function in (made.f, made.C.m):
        code = compiled(function_recipe(function))
        assert code.co_firstlineno == function.__code__.co_firstlineno
        assert list(code.co_lines())[-1] == list(function.__code__.co_lines())[-1]


def test_a_class_without_methods_has_the_features_of_its_file(module):
    made = module("from __future__ import annotations\nclass Tree:\n    child: Tree\n")
    recipe = class_source(made.Tree, lambda code: facts(code).names).recipe
    space = {"__name__": "x"}
    exec(compile_recipe(recipe), space)
    assert space["Tree"].__annotations__ == {"child": "Tree"}
