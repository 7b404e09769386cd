"""What is compiled where source arrives, and functions that are defined for there only."""

from __future__ import annotations

import linecache
import pickle
import sys
import traceback
import types

import pytest

from remote_executor.errors import CannotShip
from remote_executor.payload import source
from remote_executor.payload.pythons import python_words
from remote_executor.payload.source import (
    Recipe,
    compile_recipe,
    compiled,
    deftask_source,
)


def recipe(text, **changes):
    fields = {
        "filename": "<a test>",
        "first": 10,
        "head": "",
        "text": text,
        "tail": "",
        "path": (),
        "name": "f",
        "before": "",
        "after": "",
        "flags": 0,
    }
    return Recipe(**{**fields, **changes})


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Let each test begin in a worker that has compiled nothing."""
    monkeypatch.setattr(source, "_compiled", {})
    monkeypatch.setattr(source, "units", {})
    monkeypatch.setattr(source, "_defined", {})
    yield
    for name in [name for name in linecache.cache if name.startswith(("<a test", "<task"))]:
        del linecache.cache[name]


def test_code_has_the_lines_of_its_file_and_is_compiled_once():
    one = recipe("def f(x):\n    return 1 / x\n")
    code = compiled(one)

    assert compiled(one) is code
    function = source.make_function(one, {"__builtins__": __builtins__}, {})
    with pytest.raises(ZeroDivisionError) as caught:
        function(0)
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (frame.filename, frame.lineno, frame.line) == ("<a test>", 11, "return 1 / x")


def test_captured_variables_and_names_are_what_they_were():
    one = recipe(
        "    def f():\n        def g(): return x\n        return g\n",
        head="def __outer__(x):\n",
        path=("__outer__",),
        before="__outer__.<locals>.f",
        after="make.<locals>.f",
    )
    cell = types.CellType()
    function = source.make_function(one, {}, {"x": cell})
    cell.cell_contents = 3

    assert function()() == 3
    assert function().__qualname__ == "make.<locals>.f.<locals>.g"
    assert function.__code__.co_firstlineno == 10


def test_a_captured_variable_that_nobody_knows_is_an_empty_one():
    one = recipe("  def f(): return x\n", head="def __outer__(x):\n", path=("__outer__",))

    with pytest.raises(NameError):
        source.make_function(one, {}, {})()


def test_there_may_be_no_room_above_the_first_line():
    one = recipe(" f = lambda: 1 / 0\n", first=1, head="def __outer__():\n", path=("__outer__",))
    code = compile_recipe(one._replace(name="<lambda>"))

    assert one.shift == -1
    assert code.co_firstlineno == 1


def test_a_name_that_is_not_there_is_an_error():
    with pytest.raises(LookupError, match="g"):
        compile_recipe(recipe("def f(): pass\n", name="g"))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="its syntax is that of Python 3.12")
def test_functions_with_type_parameters_are_found():
    assert compile_recipe(recipe("def f[T](x: T) -> T:\n    return x\n")).co_name == "f"


def test_syntax_that_this_python_does_not_know_is_named():
    """K68: "source that uses syntax newer than the server's Python says so"."""
    with pytest.raises(CannotShip) as caught:
        compiled(recipe("def f():\n    return 1 1\n", after="make.f"))

    words = str(caught.value)
    assert words.startswith(f"make.f cannot be sent to {python_words()}: {python_words()} does not")
    assert "line 11" in words
    assert "return 1 1" in words
    assert isinstance(caught.value.__cause__, SyntaxError)


def test_syntax_errors_need_not_have_a_line():
    with pytest.raises(CannotShip, match=r"line 9: .*\);"):
        source._refuse_syntax("f", SyntaxError("it is wrong"), 8)


def test_the_oldest_code_is_forgotten(monkeypatch):
    monkeypatch.setattr(source, "_MOST", 2)
    recipes = [recipe(f"def f(): return {number}\n") for number in range(3)]
    codes = [compiled(one) for one in recipes]

    assert compiled(recipes[2]) is codes[2]
    assert list(source._compiled) == recipes[1:]
    assert source.units["<a test>"] == recipes[1:]


def test_lines_are_laid_over_those_that_are_known():
    linecache.cache["<a test>"] = 4, None, ["1\n", "2\n", "3"], "<a test>"
    source._show_lines(recipe("two\nthree", first=2))
    source._show_lines(recipe("six\n", first=6))

    assert linecache.getlines("<a test>") == ["1\n", "two\n", "three\n", "\n", "\n", "six\n"]


def test_a_class_statement_leaves_its_name_as_it_was():
    """The client says what the name means, not the statement."""
    one = recipe("class C:\n    x = 1\n", name="", after="C")
    space = {"C": "another", "__name__": "m"}
    made = source.define(one, space, {}, [], ((), (), {}), "a tracker of one test")

    assert made.x == 1
    assert space["C"] == "another"


# -------------------------------------------------------------------- deftask_source


def there(task):
    """Return what a server makes of a task."""
    return pickle.loads(pickle.dumps(task, 5))


def test_source_is_run_once_and_its_last_function_called_k8():
    """K8, lfarm's deftask*: never compiled here."""
    task = deftask_source(
        """
        from math import floor
        calls = []

        def helper(x):
            return floor(x)

        def far(x):
            calls.append(x)
            return helper(x), len(calls)

        rest = 3
        """
    )

    assert there(task)(2.5) == (2, 1)
    assert there(task)(3.5) == (3, 2)
    assert there(task).__globals__["rest"] == 3


def test_source_may_be_an_expression_k9():
    assert there(deftask_source("lambda p, q: p + q"))(1, 2) == 3
    assert there(deftask_source("  len  "))("ab") == 2


def test_a_function_may_be_named():
    text = "def a(): return 1\ndef b(): return 2\nc = a\n"

    assert there(deftask_source(text, name="a"))() == 1
    assert there(deftask_source(text, name="c"))() == 1
    assert there(deftask_source(text))() == 2


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("def f(): return 1 1", None, "does not know the syntax of its source (line 1"),
        ("x = 1", None, "its source defines no function"),
        ("3", None, "its source defines no function"),
        ("def f(): pass", "g", "its source does not define it"),
    ],
)
def test_source_that_is_of_no_use_says_so_there(text, name, words):
    with pytest.raises(CannotShip) as caught:
        there(deftask_source(text, name=name))

    assert words in str(caught.value)


def test_a_source_task_cannot_be_called_here():
    with pytest.raises(TypeError, match="<SourceTask f> is defined for servers only"):
        deftask_source("def f(): pass", name="f")()
    assert repr(deftask_source("print")).startswith("<SourceTask <task ")


@pytest.mark.parametrize(("text", "error"), [(b"print", TypeError), (" \n ", ValueError)])
def test_what_is_no_source_is_refused_at_once(text, error):
    with pytest.raises(error):
        deftask_source(text)


def test_the_first_lines_indentation_is_taken_off():
    assert source._dedented("\n  a\n    b\n c\n") == "\na\n  b\n c\n"


def test_the_oldest_source_is_forgotten(monkeypatch):
    monkeypatch.setattr(source, "_MOST", 1)
    there(deftask_source("print"))
    there(deftask_source("len"))

    assert list(source._defined) == [("len", None)]


def test_errors_in_it_show_its_lines():
    with pytest.raises(ZeroDivisionError) as caught:
        there(deftask_source("def f():\n    return 1 / 0\n"))()

    assert "return 1 / 0" in "".join(traceback.format_exception(caught.value))


def test_what_captures_nothing_has_no_closure():
    """An empty one is refused by PyPy."""
    captured = 1

    assert source._closure((lambda: 1).__code__, {}) is None
    assert len(source._closure((lambda: captured).__code__, {})) == 1
