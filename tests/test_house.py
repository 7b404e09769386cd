"""House rules that a program can check: docstrings, names, paths, errors that pickle."""

from __future__ import annotations

import ast
import copy
import enum
import importlib
import inspect
import pickle
import re

import pytest

from tests.support.house import PACKAGE, ROOT, modules, project_files, tree

PURE = [name for name in modules() if name.split(".")[1:2] in (["wire"], ["payload"], ["core"])]
PYTHON_FILES = [path for path in project_files() if path.suffix == ".py"]
# In two pieces, or this file would fail its own test.
MACHINE_PATH = re.compile(r"(?<![\w.$}~-])/(?:work|root|tmp/" + r"venv|home/\w+)(?:/|\b)")
WAITING_ALLOWED = ("integration", "bench", "support")

# What the errors are made of, by the name of the argument.
SAMPLES = {
    "pid": 4711,
    "exitcode": -9,
    "servers": ("node1:11111", "node2:11111"),
    "stderr": "Segmentation fault",
    "timeout": 3.5,
    "seconds": 3.5,
    "version": 1,
}


@pytest.fixture(scope="module", autouse=True)
def _forget_the_trees():
    """They are a million objects, which the garbage collector would go through for ever after."""
    yield
    tree.cache_clear()


def relative(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("name", modules())
def test_module_has_a_docstring(name):
    assert (ast.get_docstring(tree(modules()[name])) or "").strip()


@pytest.mark.parametrize("name", [name for name in modules() if not name.endswith("__main__")])
def test_all_names_resolve(name):
    module = importlib.import_module(name)
    names = getattr(module, "__all__", [])

    assert len(set(names)) == len(names)
    assert [each for each in names if not hasattr(module, each)] == []


@pytest.mark.parametrize("name", [name for name in PURE if modules()[name].name[:2] != "__"])
def test_module_of_a_pure_floor_has_a_test_file(name):
    wanted = f"test_{name.rpartition('.')[2]}.py"

    assert list((ROOT / "tests" / "unit").rglob(wanted)), f"no tests/unit/**/{wanted}"


def public_objects():
    """Return the public names of the top level, or a sole failure if it cannot be imported."""
    try:
        package = importlib.import_module("remote_executor")
        return [pytest.param(name, getattr(package, name), id=name) for name in package.__all__]
    except Exception as trouble:
        return [pytest.param("remote_executor", trouble, id=f"cannot be imported: {trouble}")]


@pytest.mark.parametrize(("name", "thing"), public_objects())
def test_public_things_are_documented(name, thing):
    if isinstance(thing, Exception):
        pytest.fail(f"remote_executor cannot be imported: {thing}")
    if not callable(thing) or isinstance(thing, str):
        return  # a constant

    assert lacks(name, thing) == []


def lacks(name, thing):
    """Return a line for each piece of documentation that a public thing should have and lacks."""
    doc = inspect.getdoc(thing) or ""
    if not isinstance(thing, type):
        return lacks_in_function(name, thing, doc)
    if not (thing.__doc__ or "").strip():
        return [f"{name} has no docstring"]
    if issubclass(thing, (BaseException, enum.Enum)) or hasattr(thing, "_fields"):
        return []
    lines = []
    made_by = vars(thing).get("__init__")
    if made_by is not None and "__dataclass_fields__" not in vars(thing):
        both = doc + "\n" + (made_by.__doc__ or "")
        lines += lacks_in_function(f"{name}()", made_by, both)
    for method, function in vars(thing).items():
        function = getattr(function, "__func__", function)
        if not method.startswith("_") and inspect.isfunction(function):
            words = inspect.getdoc(function) or ""
            lines += lacks_in_function(f"{name}.{method}", function, words)
        elif isinstance(function, property) and not method.startswith("_") and not function.__doc__:
            lines.append(f"{name}.{method} has no docstring")
    return lines


def lacks_in_function(name, function, doc):
    if not doc.strip():
        return [f"{name} has no docstring"]
    lines = []
    arguments = [each for each in inspect.signature(function).parameters if each != "self"]
    if [each for each in arguments if each != "cls"] and not (
        "Args:" in doc or "Attributes:" in doc
    ):
        lines.append(f"{name} takes arguments and has no Args section")
    if raises(function) and "Raises:" not in doc:
        lines.append(f"{name} raises and has no Raises section")
    return lines


def raises(function):
    try:
        source = inspect.getsource(inspect.unwrap(function))
        node = ast.parse(inspect.cleandoc("if 1:\n" + source) if source[:1] == " " else source)
    except (OSError, TypeError, SyntaxError):
        return False
    return any(isinstance(each, ast.Raise) and each.exc for each in ast.walk(node))


def error_classes():
    """Return every error class of the two modules of errors, with its module."""
    found = []
    for name in ("remote_executor.errors", "remote_executor.task_errors"):
        if name in modules():
            module = importlib.import_module(name)
            found += [
                thing
                for thing in vars(module).values()
                if isinstance(thing, type)
                and issubclass(thing, BaseException)
                and thing.__module__ == name
            ]
    return found


@pytest.mark.parametrize("error", error_classes())
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_pickles(error, protocol):
    one = sample(error)
    one.__notes__ = ["a note"]

    other = pickle.loads(pickle.dumps(one, protocol))

    assert type(other) is error
    assert str(other) == str(one)
    assert other.args == one.args
    assert fields(other) == fields(one)
    assert str(copy.copy(one)) == str(one)


@pytest.mark.parametrize("error", error_classes())
def test_every_error_is_in_the_tree(error):
    errors = importlib.import_module("remote_executor.errors")

    assert issubclass(error, errors.FarmError)
    assert re.search(rf"\b{error.__name__}\b", errors.__doc__), "draw it in errors.py's docstring"


def sample(error):
    made_by = error.__init__
    if not inspect.isfunction(made_by):  # BaseException's own
        return error("some words")
    arguments, keywords = [], {}
    for parameter in list(inspect.signature(made_by).parameters.values())[1:]:
        value = SAMPLES.get(parameter.name, f"some {parameter.name}")
        if parameter.kind is parameter.KEYWORD_ONLY:
            keywords[parameter.name] = value
        elif parameter.kind is not parameter.VAR_KEYWORD:
            arguments.append(value)
    return error(*arguments, **keywords)


def fields(error):
    found = dict(vars(error))
    for cls in type(error).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            found[name] = getattr(error, name, None)
    return found


@pytest.mark.parametrize("path", project_files(), ids=relative)
def test_file_names_no_path_of_some_machine(path):
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        return

    assert [line for line in text.splitlines() if MACHINE_PATH.search(line)] == []


@pytest.mark.parametrize("path", PYTHON_FILES, ids=relative)
def test_file_has_no_bare_except(path):
    bare = [
        node.lineno
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]

    assert bare == []


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in PYTHON_FILES
        if path.parts[len(ROOT.parts)] == "tests"
        and path.parts[len(ROOT.parts) + 1] not in WAITING_ALLOWED
    ],
    ids=relative,
)
def test_tests_do_not_sleep(path):
    sleeps = [
        node.lineno
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep")
        or (isinstance(node, ast.ImportFrom) and node.module == "time" and names_sleep(node))
    ]

    assert sleeps == []


def names_sleep(node):
    return any(alias.name == "sleep" for alias in node.names)


def test_package_is_typed_and_complete():
    assert (PACKAGE / "py.typed").is_file()
    assert {path.name for path in ROOT.iterdir() if path.name[0] != "."} >= {
        "pyproject.toml",
        "CHANGELOG.md",
        "README.md",
        "LICENSE",
    }


def test_changelog_opens_with_what_is_unreleased():
    headings = re.findall(r"^## .*", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)

    assert headings[:1] == ["## [Unreleased]"]


FORMATS_OF_OTHERS = {"remote_executor.launch.known_hosts": {"sha1"}}
"""OpenSSH hashes names by HMAC-SHA1; where that is refused, they match nothing."""


@pytest.mark.parametrize("name", modules())
def test_module_uses_no_hash_that_fips_refuses(name):
    weak = {"md5", "sha1", "blake2b", "blake2s"} - FORMATS_OF_OTHERS.get(name, set())
    used = [
        node.lineno
        for node in ast.walk(tree(modules()[name]))
        if (isinstance(node, ast.Attribute) and node.attr in weak)
        or (isinstance(node, ast.alias) and node.name in weak)
        or (isinstance(node, ast.Constant) and node.value in weak)
    ]

    assert used == []


@pytest.mark.parametrize("path", [*modules().values(), ROOT / "README.md"], ids=relative)
def test_install_hints_work_from_a_clone(path):
    """The package is on no index, so ``pip install 'remote_executor[tls]'`` installs nothing."""
    assert not re.search(r"install\W+(-\w+\W+)*remote_executor\b", path.read_text("utf-8"))
