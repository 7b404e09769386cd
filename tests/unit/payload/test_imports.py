"""The import hook of a worker, before a client that is played here (PARITY K7)."""

from __future__ import annotations

import importlib
import importlib.resources
import importlib.util
import inspect
import linecache
import pkgutil
import sys
import traceback
from hashlib import sha256

import pytest

from remote_executor.payload.imports import RemoteFinder, RemoteLoader, RemotePath, checked


def digest(content):
    return sha256(content).hexdigest()


class Client:
    """Answers as the real one does, from a dict of files; what is not there is absent."""

    def __init__(self, files):
        self.files = {path: text.encode() for path, text in files.items()}
        self.asked = []
        self.together = []
        self.gone = False

    def ask(self, question):
        self.asked.append(question)
        if self.gone:
            return None
        contents = {}
        if "modules" in question:
            fields = {"modules": []}
            for name in [*question["modules"], *self.together]:
                self._module(name, fields["modules"], contents)
        elif "list" in question:
            start = question["list"].replace(".", "/") + "/"
            files = [path[len(start) :] for path in self.files if path.startswith(start)]
            fields = {"files": files or None}
        else:
            package, path = question["file"]
            content = self.files.get(f"{package.replace('.', '/')}/{path}")
            fields = {"file": None}
            if content is not None:
                fields["file"] = digest(content)
                contents[fields["file"]] = content
        return {**fields, "contents": list(contents)}, list(map(memoryview, contents.values()))

    def _module(self, name, found, contents):
        path = name.replace(".", "/")
        for file in (f"{path}/__init__.py", f"{path}.py"):
            if file in self.files:
                content = self.files[file]
                contents[digest(content)] = content
                folders = [f"/far/{path}"] if file.endswith("__init__.py") else None
                found.append([name, f"/far/{file}", folders, digest(content)])
                return
        if any(file.startswith(path + "/") for file in self.files):
            found.append([name, None, [f"/far/{path}"], None])


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def serve(clock, monkeypatch):
    """Return a function that makes a client with these files and lets this process ask it."""

    def make(files):
        client = Client(files)
        client.finder = RemoteFinder(client.ask, clock)
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, client.finder])
        return client

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0][:3] == "far"]:
        del sys.modules[name]


def test_a_module_has_the_client_s_file(serve):
    serve({"far.py": "def f():\n    1 / 0\n"})
    far = importlib.import_module("far")

    assert (far.__name__, far.__file__, far.__spec__.origin) == (
        "far",
        "/far/far.py",
        "/far/far.py",
    )
    assert far.__package__ == ""
    assert not hasattr(far, "__path__")
    assert inspect.getsource(far.f) == "def f():\n    1 / 0\n"
    assert repr(far.__loader__) == "<RemoteLoader of far>"
    assert far.__loader__.get_filename("far") == "/far/far.py"
    assert not far.__loader__.is_package("far")
    with pytest.raises(ZeroDivisionError) as caught:
        far.f()
    text = "".join(traceback.format_exception(caught.value))
    assert 'File "/far/far.py", line 2, in f\n    1 / 0' in text


def test_packages_and_relative_imports(serve):
    client = serve(
        {
            "far/__init__.py": "from .a import A\n",
            "far/a.py": "from .deep.b import A\n",
            "far/deep/b.py": "A = __name__\n",
        }
    )
    client.together = ["far.a", "far.deep", "far.deep.b"]
    far = importlib.import_module("far")

    assert far.A == "far.deep.b"
    assert list(far.__path__) == ["/far/far"]
    assert far.deep.__spec__.origin is None
    assert not hasattr(far.deep, "__file__"), "it has no __init__.py"
    assert client.asked == [{"modules": ["far"]}], "the rest had come with it"
    assert repr(client.finder) == "<RemoteFinder 0 modules ahead>"


def test_what_came_ahead_is_used_for_some_seconds(serve, clock):
    client = serve({"far.py": "", "far2.py": "X = 1\n"})
    client.together = ["far2"]
    importlib.import_module("far")
    clock.now += 10
    client.files["far2.py"] = b"X = 2\n"

    assert importlib.import_module("far2").X == 2


def test_what_is_here_comes_first(serve):
    client = serve({"json.py": "", "far.py": ""})

    assert importlib.import_module("json").loads("1") == 1
    assert importlib.util.find_spec("far").loader.name == "far"
    assert client.asked == [{"modules": ["far"]}]


def test_the_standard_library_and_this_package_are_not_asked_for(serve):
    client = serve({"remote_executor/more.py": "", "msilib.py": ""})

    assert client.finder.find_spec("remote_executor.more") is None
    assert client.finder.find_spec("json.more") is None
    assert client.asked == []


def test_what_the_client_lacks_is_not_asked_for_again_at_once(serve, clock):
    client = serve({})
    for _ in range(3):
        with pytest.raises(ModuleNotFoundError, match="No module named 'far'"):
            importlib.import_module("far")
    assert len(client.asked) == 1
    clock.now += 2
    client.files["far.py"] = b""

    importlib.import_module("far")

    assert len(client.asked) == 2


def test_invalidate_caches_asks_at_once(serve):
    client = serve({})
    assert importlib.util.find_spec("far") is None
    client.files["far.py"] = b""
    assert importlib.util.find_spec("far") is None

    importlib.invalidate_caches()

    assert importlib.util.find_spec("far") is not None


def test_what_was_absent_and_came_ahead_is_there(serve):
    client = serve({"far2.py": ""})
    assert importlib.util.find_spec("far") is None
    client.files["far.py"] = b""
    client.together = ["far"]
    importlib.import_module("far2")

    assert importlib.util.find_spec("far") is not None


def test_reload_asks_anew(serve):
    client = serve({"far.py": "X = 1\n", "far2.py": "Y = 1\n"})
    client.together = ["far2"]
    far = importlib.import_module("far")
    assert inspect.getsource(far) == "X = 1\n"
    client.files.update({"far.py": b"import far2\nX = 2\n", "far2.py": b"Y = 2\n"})

    assert importlib.reload(far) is far
    assert far.X == 2
    assert far.far2.Y == 2
    assert inspect.getsource(far) == "import far2\nX = 2\n"


def test_nobody_to_ask(serve):
    client = serve({"far/__init__.py": ""})
    far = importlib.import_module("far")
    client.gone = True

    assert importlib.util.find_spec("far2") is None
    assert list(importlib.resources.files(far).iterdir()) == []
    with pytest.raises(FileNotFoundError):
        importlib.resources.files(far).joinpath("x").read_bytes()


def test_a_source_that_breaks(serve):
    serve({"far.py": "import far2\n", "far2.py": "def f(:\n"})

    with pytest.raises(SyntaxError) as caught:
        importlib.import_module("far")

    assert (caught.value.filename, caught.value.lineno) == ("/far/far2.py", 1)
    assert "far" not in sys.modules


def test_lines_are_the_client_s_though_another_file_has_that_name(serve, tmp_path):
    other = tmp_path / "far.py"
    other.write_text("# line one\n# not this\n")
    loader = RemoteLoader(None, "far", str(other), None, b"def f():\n    1 / 0\n")

    exec(loader.get_code("far"), {})

    assert linecache.getline(str(other), 2) == "    1 / 0\n"


def test_where_no_lines_were_looked_at_yet(monkeypatch):
    monkeypatch.delitem(sys.modules, "linecache")
    loader = RemoteLoader(None, "far", "/far/far.py", None, b"X = 1\n")

    assert loader.get_code("far").co_filename == "/far/far.py"
    assert "linecache" not in sys.modules


def test_a_source_says_how_it_is_encoded(serve):
    serve({"far.py": ""}).files["far.py"] = "# coding: latin-1\nX = 'é'\n".encode("latin-1")

    far = importlib.import_module("far")

    assert far.X == "é"
    assert "'é'" in inspect.getsource(far)


def test_a_content_that_is_not_what_was_sent():
    assert checked(b"x", digest(b"x")) == b"x"
    with pytest.raises(ImportError, match="digest"):
        checked(b"y", digest(b"x"))


# -- package data


@pytest.fixture
def far(serve):
    serve(
        {
            "far/__init__.py": "",
            "far/top.txt": "line\r\nline\n",
            "far/data/a.txt": "a",
            "far/data/deep/b.txt": "ü",
            "far/part.py": "",
        }
    )
    return importlib.import_module("far")


def test_files_of_a_package(far):
    root = importlib.resources.files(far)

    assert [each.name for each in root.iterdir()] == ["__init__.py", "top.txt", "data", "part.py"]
    assert root.name == "far"
    assert root.joinpath("top.txt").read_text() == "line\nline\n"
    assert root.joinpath("data/deep", "b.txt").read_text(encoding="utf-8") == "ü"
    assert (root / "data" / "." / "a.txt").read_bytes() == b"a"
    folder = root / "data"
    assert (folder.is_dir(), folder.is_file(), folder.exists()) == (True, False, True)
    file = folder / "a.txt"
    assert (file.is_dir(), file.is_file(), file.exists()) == (False, True, True)
    assert not (folder / "missing").exists()
    assert [each.name for each in folder.iterdir()] == ["a.txt", "deep"]
    assert repr(file) == "<RemotePath 'far/data/a.txt'>"
    assert isinstance(file, RemotePath)


def test_the_modules_of_a_package_can_be_listed(serve, monkeypatch):
    """Plugins are often found by ``pkgutil.iter_modules``."""
    client = serve(
        {
            "far/__init__.py": "",
            "far/b.py": "",
            "far/a.py": "",
            "far/sub/__init__.py": "",
            "far/sub/c.py": "",
            "far/data/table.csv": "",
        }
    )
    monkeypatch.setattr(sys, "path_hooks", [client.finder.path_hook, *sys.path_hooks])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    far = importlib.import_module("far")

    found = [(each.name, each.ispkg) for each in pkgutil.iter_modules(far.__path__, "far.")]

    assert found == [("far.a", False), ("far.b", False), ("far.sub", True)]
    walked = [each.name for each in pkgutil.walk_packages(far.__path__, "far.")]
    assert walked == ["far.a", "far.b", "far.sub", "far.sub.c"]
    with pytest.raises(ImportError, match="is not the folder"):
        client.finder.path_hook("/else/where")


def test_opening(far):
    file = importlib.resources.files(far) / "data" / "a.txt"

    with file.open("rb") as stream:
        assert stream.read() == b"a"
    with file.open(encoding="utf-8") as stream:
        assert stream.read() == "a"
    with pytest.raises(ValueError, match="only be read"):
        file.open("w")
    with pytest.raises(FileNotFoundError):
        (file / "nothing").open()


def test_as_a_file_of_this_machine(far):
    with importlib.resources.as_file(importlib.resources.files(far) / "data" / "a.txt") as path:
        assert path.read_text() == "a"


def test_the_older_ways(far):
    assert pkgutil.get_data("far", "data/a.txt") == b"a"
    with pytest.raises(FileNotFoundError):
        pkgutil.get_data("far", "missing.txt")
    reader = far.__loader__.get_resource_reader("far")
    assert reader.open_resource("top.txt").read() == b"line\r\nline\n"
    assert reader.is_resource("top.txt")
    assert not reader.is_resource("data")
    assert "data" in list(reader.contents())
    with pytest.raises(FileNotFoundError):
        reader.resource_path("top.txt")


def test_a_module_reads_beside_itself(far):
    part = importlib.import_module("far.part")

    assert part.__loader__.get_data("/far/far/data/a.txt") == b"a"
    assert part.__loader__.get_resource_reader("far.part") is None
