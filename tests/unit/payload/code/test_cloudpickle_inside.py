"""What is taken from cloudpickle's inside, with the oldest and the newest release at either end."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

from remote_executor.payload.code import cloudpickle_inside as inside
from tests.support.releases import release
from tests.support.scale import scaled

ROOT = Path(__file__).parents[4]

#: Code that no file has: it can travel by value alone.
TEXT = """
import enum

def top(x, *, y=2):
    def inner(z):
        class Within:
            def method(self):
                return [each for each in (x, y, z)]
        return Within
    return inner

class Shape:
    side = 3

    def area(self):
        return self.side ** 2

    @property
    def twice(self):
        return 2 * self.area()

    @staticmethod
    def fails():
        raise ValueError("why")

class Colour(enum.Enum):
    RED = 1

    def shout(self):
        return self.name + "!"

def generate(n):
    yield from range(n)

async def later():
    return 1

counter = (lambda start: lambda: start + 1)(4)
"""

#: What RECEIVE has to find, each of which is code of its own.
WALKED = {"top", "inner", "Within", "method", "generate", "later", "<lambda>"}
WALKED |= {"area", "fails", "twice"}
if sys.version_info < (3, 12):  # later a comprehension is a part of the code around it
    WALKED |= {"<listcomp>"}

SEND = """
import sys, types, cloudpickle
from remote_executor.payload.pickles import dump
main = sys.modules["__main__"].__dict__
exec(compile(open(sys.argv[1]).read(), "/nowhere/code.py", "exec"), main)
names = ["top", "Shape", "Colour", "generate", "later", "counter"]
body, _ = dump({name: main[name] for name in names})
open(sys.argv[2], "wb").write(body)
print(cloudpickle.__version__)
"""

RECEIVE = """
import sys, json, traceback, types, cloudpickle
from remote_executor.payload import mains
from remote_executor.payload.pickles import load
mains.prepare_main()
found = load(open(sys.argv[1], "rb").read())
codes = []
def walk(code):
    codes.append([code.co_filename, code.co_name, code.co_firstlineno])
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            walk(constant)
shape = found["Shape"]
for each in (*found.values(), shape.area, shape.fails, vars(shape)["twice"].fget):
    if isinstance(each, types.FunctionType):
        walk(each.__code__)
try:
    shape.fails()
except ValueError as error:
    frame = traceback.extract_tb(error.__traceback__)[-1]
values = (
    found["top"](1)(3)().method(), shape().twice, found["Colour"].RED.shout(),
    list(found["generate"](2)), found["counter"](), found["top"](1)(3).__qualname__,
)
print(json.dumps([cloudpickle.__version__, codes, [frame.filename, frame.lineno], values]))
"""


def run(text, *arguments, folder):
    paths = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", text, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def codes_of(code):
    yield [code.co_filename, code.co_name, code.co_firstlineno]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes_of(constant)


@pytest.mark.parametrize("theirs", ["oldest", "newest"])
@pytest.mark.parametrize("ours", ["oldest", "newest"])
def test_code_keeps_files_lines_and_names_whatever_release_is_at_either_end(ours, theirs, tmp_path):
    there = run(SEND, *_files(tmp_path), folder=release("cloudpickle", ours))
    here = json.loads(run(RECEIVE, tmp_path / "body.pickle", folder=release("cloudpickle", theirs)))

    version, codes, (filename, line), values = here
    assert (there == version) is (ours == theirs)
    whole = list(codes_of(compile(TEXT, "/nowhere/code.py", "exec")))
    assert {name for _, name, _ in codes} >= WALKED
    assert [each for each in codes if each not in whole] == []
    assert (filename, line) == ("/nowhere/code.py", 1 + TEXT[: TEXT.index("raise")].count("\n"))
    assert values == [[1, 2, 3], 18, "RED!", [0, 1], 5, "top.<locals>.inner.<locals>.Within"]


def _files(folder):
    (folder / "text.py").write_text(TEXT)
    return folder / "text.py", folder / "body.pickle"


def dumps(obj):
    file = io.BytesIO()
    inside.Pickler(file, 5).dump(obj)
    return file.getvalue()


def test_code_objects_are_the_same_after_the_way():
    code = compile(TEXT, "/nowhere/code.py", "exec")

    again = pickle.loads(dumps(code))

    assert again == code
    assert list(codes_of(again)) == list(codes_of(code))
    assert list(again.co_lines()) == list(code.co_lines())


def test_equal_code_gives_equal_bytes():
    """So a cell of a notebook that runs again sends nothing again."""
    first, second = (compile(TEXT, "f.py", "exec") for _ in range(2))

    assert dumps(first) == dumps(second)


def test_what_goes_by_name():
    assert inside.goes_by_name(json.dumps)
    assert inside.goes_by_name(json.JSONDecoder)
    assert inside.goes_by_name(json)
    assert not inside.goes_by_name(lambda: 1)
    assert not inside.goes_by_name(types.ModuleType("made_by_hand"))


def test_classes_have_one_id():
    class Local:
        pass

    tracker = inside.tracker_of(Local)

    assert inside.tracker_of(Local) == tracker
    assert inside.tracked(tracker) is Local
    assert inside.tracked("another") is None
    assert inside.track(tracker, type("Local", (), {})) is Local


def test_submodules_that_code_gets_at_by_their_package():
    code = compile("xml.etree.ElementTree.fromstring('')", "f.py", "exec")
    import xml.etree.ElementTree

    assert xml.etree.ElementTree in inside.imported_submodules(code, [xml])
    assert inside.imported_submodules(code, [1]) == []


#: Releases that do not know the Python they are on: as on PyPy 8.0, and as on CPython 3.14.
UNFIT = {
    "does not load": "raise SystemError('bad argument to internal function')",
    "does not find itself": """
__version__ = "3.1.0"
def _make_function(): pass
def _should_pickle_by_reference(obj): return False
""",
}


@pytest.mark.parametrize("how", UNFIT)
def test_a_cloudpickle_that_does_not_know_this_python_is_named(how, tmp_path):
    package = tmp_path / "cloudpickle"
    package.mkdir()
    (package / "__init__.py").write_text("from .cloudpickle import *; __version__ = '3.1.0'")
    (package / "cloudpickle.py").write_text(UNFIT[how])
    program = """
        import sys
        from remote_executor.errors import PayloadError
        from remote_executor.payload.pickles import dump, load
        assert load(*dump(len)) is len  # what goes by name has no need of it
        for name in (1, 2):
            try:
                dump(lambda: 1)
            except (ImportError, PayloadError) as error:
                said = str(error)
        print(said)
        """

    said = run(textwrap.dedent(program), folder=tmp_path)

    assert "the installed cloudpickle does not work on this Python" in said
    assert sys.version.split()[0] in said
    assert "install a release of cloudpickle that knows this Python" in said
