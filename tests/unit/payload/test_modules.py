"""Which modules a worker may have of the client's, and what it gets (PARITY K7)."""

from __future__ import annotations

import os
import sys
import types
import zipfile
from importlib.machinery import ModuleSpec
from unittest.mock import ANY

import pytest

from remote_executor.errors import RemoteProtocolError
from remote_executor.payload import modules
from remote_executor.payload.imports import RemoteLoader
from remote_executor.payload.modules import (
    Modules,
    imported_names,
    is_installed,
    is_module_name,
    users_own_file,
    why_not_served,
)


def write(root, files):
    for path, text in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return root


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Write files into a folder that this process imports from, and return the folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield lambda files: write(folder, files)
    for name in set(sys.modules) - before:
        if name.partition(".")[0][:3] == "own":
            del sys.modules[name]


def ask(*names, served=None):
    served = Modules() if served is None else served
    fields, contents = served.answer({"modules": list(names)})
    digests = [each[3] for each in fields["modules"] if each[3] is not None]
    assert list(contents) == list(dict.fromkeys(digests))
    return fields["modules"], list(contents.values())


def found(*names, **options):
    return [each[0] for each in ask(*names, **options)[0]]


def test_a_module_beside_the_script(project):
    folder = project({"own.py": "X = 1\n"})

    ((name, file, folders, _),), contents = ask("own")

    assert (name, file, folders) == ("own", str(folder / "own.py"), None)
    assert contents == [b"X = 1\n"]


def test_a_package_with_all_that_its_sources_import(project):
    project(
        {
            "own/__init__.py": "from .a import x\n",
            "own/a.py": "from own.deep import b as c\nfrom ..too_far import y\n",
            "own/deep/__init__.py": "",
            "own/deep/b.py": "import own2, json\ndef f():\n    from . import late\n",
            "own/deep/late.py": "def f(:\n",
            "own/unused.py": "",
            "own2.py": "import own_missing\n",
        }
    )

    assert found("own") == ["own", "own.a", "own.deep", "own.deep.b", "own2", "own.deep.late"]


def test_what_is_loaded_of_the_same_package_comes_along(project):
    """It was found by a name that no source shows, such as that of a plugin."""
    project({"own/__init__.py": "", "own/plugin.py": "", "own/other.py": ""})
    __import__("own.plugin")

    assert found("own") == ["own", "own.plugin"]


def test_a_package_without_an_init_file(project):
    folder = project({"own/part.py": ""})

    modules, contents = ask("own", "own.part")

    assert modules[0] == ["own", None, (str(folder / "own"),), None]
    assert found("own", "own.part") == ["own", "own.part"]
    assert contents == [b""]


def test_nothing_is_imported_to_find_it(project):
    project({"own/__init__.py": "raise SystemExit\n", "own/part.py": "raise SystemExit\n"})

    assert found("own.part") == ["own.part"]
    assert "own" not in sys.modules


@pytest.mark.parametrize(
    "name",
    [
        "json",
        "json.decoder",
        "sys",
        "_io",
        "zipimport",
        "cloudpickle",
        "numpy.linalg",
        "remote_executor",
        "remote_executor.errors",
        "__main__",
        "__mp_main__",
        "own_missing",
        "own_missing.part",
        "tests_missing",
    ],
)
def test_what_is_not_the_users_own_is_not_served(project, name):
    assert ask(name) == ([], [])


def test_a_submodule_of_a_module_that_is_none_of_a_package(project):
    project({"own.py": ""})

    assert found("own.part") == []


@pytest.mark.parametrize(
    "name",
    ["", ".", "own.", ".own", "../own", "own/part", "own\0", "own.py:x", "a" * 1001, 7, None, []],
)
def test_hostile_names(project, name):
    project({"own.py": "", "own/part.py": ""})

    assert not is_module_name(name)
    assert found(name) == []


def test_a_symbolic_link_that_leads_out_is_refused(project, tmp_path):
    folder = project({"own/__init__.py": "", "own/inside.py": "X = 1\n"})
    secret = tmp_path / "secret.py"
    secret.write_text("PASSWORD = 1\n")
    write(tmp_path, {"elsewhere/__init__.py": "", "spaces/part.py": ""})
    (folder / "own_link.py").symlink_to(secret)
    (folder / "own" / "link.py").symlink_to(secret)
    (folder / "own" / "fine.py").symlink_to("inside.py")
    (folder / "own_folder").symlink_to(tmp_path / "elsewhere")
    (folder / "own_space").symlink_to(tmp_path / "spaces")

    assert found("own_link") == []
    assert found("own.link") == []
    assert found("own_folder") == []
    assert found("own_space", "own_space.part") == []
    assert found("own.fine") == ["own.fine"], "one that stays inside"


def test_what_is_no_file_is_not_opened(project):
    folder = project({"own/__init__.py": ""})
    os.mkfifo(folder / "own_pipe.py")
    os.mkfifo(folder / "own" / "pipe.txt")

    assert found("own_pipe") == []
    assert data("own", "pipe.txt") is None


def test_folders_that_a_package_added_to_its_path_stay_at_home(project, tmp_path):
    secret = write(tmp_path, {"elsewhere/secret.txt": "x", "elsewhere/part.py": ""}) / "elsewhere"
    project({"own/__init__.py": f"__path__.append({str(secret)!r})\n"})
    __import__("own")

    assert listed("own") == ["__init__.py"]
    assert data("own", "secret.txt") is None
    assert found("own.part") == ["own"], "it is loaded"


def test_a_compiled_module_is_not_served(project, tmp_path, monkeypatch):
    project({"own_compiled.so": ""})
    module = types.ModuleType("own_compiled")
    spec = ModuleSpec("own_compiled", None, origin=str(tmp_path / "project" / "own_compiled.so"))
    spec.has_location = True
    module.__spec__ = spec
    monkeypatch.setitem(sys.modules, "own_compiled", module)

    assert found("own_compiled") == []
    assert why_not_served("own_compiled")[2].startswith("is a compiled one")


def test_a_module_made_by_hand_is_not_served(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_ghost", types.ModuleType("own_ghost"))

    assert found("own_ghost") == []
    assert why_not_served("own_ghost") == ("own_ghost", "", "has no source that could be sent")


def test_finders_of_others(project, tmp_path, monkeypatch):
    """An editable install maps names to folders; one that breaks is passed over."""
    write(tmp_path, {"src/own/__init__.py": "from . import part\n", "src/own/part.py": ""})
    outside = write(tmp_path, {"outside.py": ""}) / "outside.py"

    class Broken:
        def find_spec(self, name, path=None, target=None):
            raise RuntimeError

    class Odd:
        """Folders that cannot be computed."""

        def find_spec(self, name, path=None, target=None):
            if name != "own_odd":
                return None
            spec = ModuleSpec(name, None)
            spec.submodule_search_locations = [None]
            return spec

    class Editable:
        def find_spec(self, name, path=None, target=None):
            if name != "own":
                return None
            from importlib.util import spec_from_file_location

            return spec_from_file_location(name, tmp_path / "src" / "own" / "__init__.py")

    for finder in (object(), Broken(), Odd(), Editable()):
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder])

    assert found("own") == ["own", "own.part"]
    assert found("own_odd") == []
    (tmp_path / "src" / "own" / "link.py").symlink_to(outside)
    assert found("own.link") == []


def test_a_folder_that_is_imported_from_may_be_a_link(project, tmp_path, monkeypatch):
    folder = project({"own.py": ""})
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "link")])

    modules, _ = ask("own")

    assert modules[0][1] == str(tmp_path / "link" / "own.py")


def test_what_a_worker_was_served_it_serves_on(monkeypatch):
    """A task may have a farm of its own."""
    loader = RemoteLoader(None, "own_served", "/far/own_served.py", None, b"import own_more\n")
    module = types.ModuleType("own_served")
    module.__spec__ = ModuleSpec("own_served", loader, origin="/far/own_served.py")
    module.__spec__.has_location = True
    monkeypatch.setitem(sys.modules, "own_served", module)

    modules, contents = ask("own_served")

    assert modules[0][:2] == ["own_served", "/far/own_served.py"]
    assert contents == [b"import own_more\n"]


def test_names_say_what_may_be_served(project):
    project({"own/__init__.py": "", "own/a.py": "", "own/b/__init__.py": "", "own2.py": ""})
    served = Modules(["own.b", "own2"])

    # The package above it is needed to import it.
    assert found("own", "own.a", "own.b", "own2", served=served) == ["own", "own.b", "own2"]
    assert listed("own", "own.b") is None
    assert listed("own.b", "own.b") == ["__init__.py"]
    assert not Modules("never")
    assert Modules()
    assert found("own", served=Modules("never")) == []
    assert repr(served) == "<Modules ['own.b', 'own2'] 3 files>"
    assert repr(Modules()) == "<Modules auto 0 files>"


@pytest.mark.parametrize("which", ["some", "", [""], ["own", 7], ["a/b"]])
def test_other_values_are_errors(which):
    with pytest.raises(ValueError, match="modules"):
        Modules(which)


def test_what_was_edited_is_read_again(project):
    folder = project({"own.py": "X = 1\n", "own_same.py": "X = 1\n"})
    served = Modules()

    for _ in range(2):
        assert ask("own", "own_same", served=served)[1] == [b"X = 1\n"], "it is there once"
    (folder / "own.py").write_text("X = 22\n")
    assert ask("own", served=served)[1] == [b"X = 22\n"]


def test_a_file_that_cannot_be_read_is_absent(project, monkeypatch):
    folder = project({"own.py": "", "own2.py": ""})
    module = __import__("own")
    assert module.__file__ == str(folder / "own.py")
    (folder / "own.py").unlink()

    assert found("own") == []
    monkeypatch.setattr(modules, "open", refuse, raising=False)
    assert found("own2") == []


def refuse(*_):
    raise OSError


def test_the_cache_of_sources_is_bounded(project, monkeypatch):
    project({f"own{i}.py": "#" * 50 for i in range(3)})
    monkeypatch.setattr(modules, "MOST_CACHED_BYTES", 60)
    served = Modules()

    ask("own0", "own1", served=served)
    assert "2 files" in repr(served)
    ask("own2", served=served)
    assert "1 files" in repr(served)


@pytest.mark.parametrize(("limit", "value"), [("MOST_AHEAD", 3), ("MOST_AHEAD_BYTES", 50)])
def test_what_comes_ahead_is_bounded(project, monkeypatch, limit, value):
    files = {f"own{i}.py": f"import own{i + 1}, own_last\n" for i in range(9)}
    project({**files, "own_last.py": ""})
    monkeypatch.setattr(modules, limit, value)

    names = found("own0", "own8")

    assert names[:2] == ["own0", "own8"], "what was asked for comes in any case"
    assert len(names) < 6


@pytest.mark.parametrize(("limit", "value"), [("MOST_LOADED", 3), ("MOST_LOADED_BYTES", 30)])
def test_what_comes_along_because_it_is_loaded_is_bounded(project, monkeypatch, limit, value):
    names = [f"part{i}" for i in range(9)]
    project({"own/__init__.py": "", **{f"own/{name}.py": "# some text\n" for name in names}})
    for name in names:
        __import__(f"own.{name}")
    monkeypatch.setattr(modules, limit, value)

    assert len(found("own")) == 4
    assert found("own.part1", "own.part2")[:2] == ["own.part1", "own.part2"]
    assert len(found("own.part1", "own.part2")) < 7


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"modules": []},
        {"modules": "own"},
        {"modules": ["own"] * 1001},
        {"file": "own"},
        {"file": ["own"]},
    ],
)
def test_no_question(question):
    with pytest.raises(RemoteProtocolError):
        Modules().answer(question)


# -- package data


def listed(package, *names):
    return Modules(names or "auto").answer({"list": package})[0]["files"]


def data(package, path):
    fields, contents = Modules().answer({"file": [package, path]})
    assert (fields["file"] is None) == (contents == {})
    return contents.get(fields["file"])


@pytest.fixture
def package(project, tmp_path):
    folder = project(
        {
            "own/__init__.py": "",
            "own/data/table.csv": "1,2\n",
            "own/.hidden": "x",
            "own/.git/config": "x",
            "own/__pycache__/own.pyc": "x",
            "own/old.pyc": "x",
            "own/sub/__init__.py": "",
            "outside.txt": "x",
        }
    )
    (tmp_path / "secret").write_text("x")
    (folder / "own" / "link").symlink_to(tmp_path / "secret")
    (folder / "own" / "near").symlink_to(folder / "outside.txt")
    (folder / "own" / "data" / "same.csv").symlink_to("table.csv")
    (folder / "own" / "folder").symlink_to(tmp_path)
    return folder


def test_the_files_of_a_package(package):
    files = ["__init__.py", "data/same.csv", "data/table.csv", "sub/__init__.py"]
    assert listed("own") == files
    assert data("own", "data/table.csv") == data("own", "data/same.csv") == b"1,2\n"
    assert data("own.sub", "__init__.py") == b""


@pytest.mark.parametrize(
    "path",
    [
        "../outside.txt",
        "data/../../outside.txt",
        "link",
        "near",
        "folder/secret",
        ".hidden",
        ".git/config",
        "__pycache__/own.pyc",
        "old.pyc",
        "data",
        "data/",
        "/etc/passwd",
        "missing",
        "",
        ".",
        "a\0b",
        "data\\table.csv",
        "x" * 5000,
        7,
        None,
    ],
)
def test_hostile_paths(package, path):
    assert data("own", path) is None


@pytest.mark.parametrize("name", ["json", "os.path", "own_missing", "own.old", "", None, 7])
def test_no_files_of_what_is_not_the_users_own_package(package, name):
    assert listed(name) is None
    assert data(name, "__init__.py") is None


def test_a_folder_is_a_package_only_if_it_is_used_as_one(project, monkeypatch):
    project({"own/notes.txt": "x", "own/part.py": ""})

    assert listed("own") is None
    __import__("own.part")
    assert listed("own") == ["notes.txt", "part.py"]


def test_a_long_list_is_cut(package, monkeypatch):
    monkeypatch.setattr(modules, "MOST_FILES", 2)

    assert listed("own") == ["__init__.py", "data/same.csv"]


def test_a_data_file_that_goes_away(package, monkeypatch):
    monkeypatch.setattr(modules, "open", refuse, raising=False)

    assert data("own", "data/table.csv") is None


# -- files that look like secrets

LISTED = ("notes.txt", "link.csv")
"""Whose names alone are harmless."""

SECRETS = ["credentials.json", "data/server.pem", "prod.key", "id_rsa", ".env", "users.sqlite"]
KEY = "-----BEGIN PRIVATE KEY-----\n"


@pytest.fixture
def secrets(project):
    return project(
        {"own/__init__.py": "", "own/table.csv": "1,2\n", "own/notes.txt": KEY, "own/.git/x": "x"}
        | {f"own/{path}": "x" for path in SECRETS}
        | {"own/.hidden": "x"}
    )


@pytest.mark.parametrize("path", [*SECRETS, "notes.txt", ".hidden", ".git/x", "link.csv"])
def test_what_looks_like_a_secret_stays_here_and_that_is_said(secrets, path, caplog):
    (secrets / "own" / "link.csv").symlink_to("prod.key")
    served = Modules()
    for _ in range(3):
        fields, contents = served.answer({"file": ["own", path]})
        assert (fields["file"], contents) == (None, {})
        assert repr(path) in fields["withheld"]
        assert 'modules=["own"]' in fields["withheld"]
    assert served.answer({"list": "own"})[0]["files"].count(path) == (path in LISTED)

    (line,) = [record for record in caplog.records if record.name == "remote_executor.client"]
    assert line.levelname == "WARNING"
    assert repr(path) in line.getMessage()


@pytest.mark.parametrize("path", [*SECRETS, "notes.txt"])
@pytest.mark.parametrize("names", [["own"], ["own", "other"]])
def test_who_names_the_package_has_all_of_it_served(secrets, path, names, caplog):
    served = Modules(names)
    fields, contents = served.answer({"file": ["own", path]})

    assert list(contents) == [fields["file"]]
    assert path in served.answer({"list": "own"})[0]["files"]
    assert not caplog.records
    for hidden in (".hidden", ".git/x"):
        assert served.answer({"file": ["own", hidden]})[1] == {}


def test_a_secret_that_is_not_there_is_only_missing(secrets, caplog):
    assert Modules().answer({"file": ["own", "other.pem"]})[0] == {"file": None}
    assert not caplog.records


def test_what_is_said_of_secrets_is_bounded(secrets, caplog, monkeypatch):
    monkeypatch.setattr(modules, "MOST_WITHHELD", 2)
    served = Modules()
    for path in SECRETS:
        served.answer({"file": ["own", path]})
    assert len(caplog.records) == 2


def test_a_source_that_looks_like_a_secret_does_not_come_before_it_is_imported(project):
    """It is code, which a task needs; but nobody gets it who did not ask."""
    project(
        {
            "own/__init__.py": "from own import credentials, other\nfrom own.secrets import x\n",
            "own/credentials.py": "",
            "own/other.py": "",
            "own/secrets/__init__.py": "x = 1",
        }
    )
    assert found("own") == ["own", "own.other"]
    __import__("own")
    assert found("own") == ["own", "own.other"]
    assert set(found("own.credentials")) == {"own.credentials", "own", "own.other"}
    assert "own.credentials" in found("own", served=Modules(["own"]))


# -- zip files


@pytest.fixture
def zipped(tmp_path, monkeypatch):
    """Return a zip file that this process imports from."""
    archive = tmp_path / "program.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for name, text in {
            "own.py": "import own_package.deep\n",
            "own_package/__init__.py": "",
            "own_package/deep.py": "X = 1\n",
            "own_package/data/table.csv": "1,2\n",
            "own_package/.hidden": "x",
            "own_package/../own_escaped.txt": "x",
            "own_spread/": "",
            "own_spread/part.py": "Y = 2\n",
            "own_old.pyc": "x",
        }.items():
            made.writestr(name, text)
    monkeypatch.syspath_prepend(archive)
    yield archive
    for name in set(sys.modules):
        if name.startswith("own"):
            del sys.modules[name]


def test_modules_in_a_zip_file(zipped):
    modules, contents = ask("own")

    assert modules == [
        ["own", f"{zipped}/own.py", None, modules[0][3]],
        ["own_package", f"{zipped}/own_package/__init__.py", (f"{zipped}/own_package",), ANY],
        ["own_package.deep", f"{zipped}/own_package/deep.py", None, ANY],
    ]
    assert contents == [b"import own_package.deep\n", b"", b"X = 1\n"]


def test_a_package_without_an_init_file_in_a_zip_file(zipped):
    assert found("own_spread", "own_spread.part") == ["own_spread", "own_spread.part"]
    assert ask("own_spread.part")[1] == [b"Y = 2\n"]


def test_package_data_in_a_zip_file(zipped):
    assert listed("own_package") == ["__init__.py", "data/table.csv", "deep.py"]
    assert data("own_package", "data/table.csv") == b"1,2\n"
    for path in ["../own.py", "missing", ".hidden", "data", "../own_escaped.txt"]:
        assert data("own_package", path) is None


def test_a_zip_file_may_be_named_from_where_one_is(zipped, monkeypatch):
    monkeypatch.chdir(zipped.parent)
    monkeypatch.setattr(sys, "path", ["program.zip", *sys.path[1:]])

    assert ask("own_package.deep")[1][-1] == b"X = 1\n"
    assert data("own_package", "data/table.csv") == b"1,2\n"


def test_what_is_in_a_zip_file_without_source_or_installed_is_not_served(zipped, monkeypatch):
    assert found("own_old") == []
    monkeypatch.setattr(modules, "is_installed", lambda path: path.startswith(str(zipped)))
    assert found("own", "own_package") == []


def test_a_zip_file_that_goes_away(zipped):
    served = Modules()
    assert found("own_package", served=served) == ["own_package"]
    __import__("own_package")
    zipped.unlink()

    assert served.answer({"list": "own_package"})[0]["files"] is None
    assert found("own_package", served=served) == []
    zipped.write_text("no archive")
    assert served.answer({"list": "own_package"})[0]["files"] is None


def test_a_zip_file_that_is_being_replaced(zipped, monkeypatch):
    __import__("own_spread.part")
    monkeypatch.setattr(zipfile, "ZipFile", refuse)

    assert listed("own_package") is None
    assert listed("own_spread") == []


def rewrite(archive, **files):
    """Replace a zip file, as a build does."""
    fresh = archive.with_suffix(".new")
    with zipfile.ZipFile(fresh, "w") as made:
        for name, text in files.items():
            made.writestr(name, text)
    fresh.replace(archive)


def test_a_zip_file_that_was_replaced_is_read_anew(zipped):
    """What stands now where a file was is not taken for it."""
    __import__("own")
    __import__("own_package")
    rewrite(
        zipped,
        **{
            "secret.key": "0123456789" * 20,
            "own.py": "import own_package.deep\nA = 1000000\n",
            "own_package/__init__.py": "# new\n",
            "own_package/data/table.csv": "3,4,5\n",
        },
    )

    assert ask("own")[1][:2] == [b"import own_package.deep\nA = 1000000\n", b"# new\n"]
    assert data("own_package", "data/table.csv") == b"3,4,5\n"
    assert data("own_package", "deep.py") is None


def test_package_data_of_a_package_without_an_init_file_in_a_zip_file(zipped):
    __import__("own_spread.part")

    assert listed("own_spread") == ["part.py"]
    assert data("own_spread", "part.py") == b"Y = 2\n"


def test_a_zip_file_that_a_package_added_to_its_path_stays_at_home(project, tmp_path):
    folder = project({"own/__init__.py": ""})
    other = tmp_path / "other.zip"
    for archive in (other, folder / "own" / "inner.zip"):
        with zipfile.ZipFile(archive, "w") as made:
            made.writestr(f"in_{archive.stem}.py", "")
    own = __import__("own")
    own.__path__ += [str(other), str(folder / "own" / "inner.zip")]

    assert "own.in_other" not in found("own.in_other")
    assert "own.in_inner" in found("own.in_inner")


# -- names


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import a.b.c, d as e", ["a", "a.b", "a.b.c", "d"]),
        ("from a.b import c, d", ["a", "a.b", "a.b.c", "a.b.d"]),
        ("from a import *", ["a"]),
        ("from . import x", ["p", "p.q", "p.q.x"]),
        ("from .x import y", ["p", "p.q", "p.q.x", "p.q.x.y"]),
        ("from ..x import y", ["p", "p.x", "p.x.y"]),
        ("from ... import y", []),
        ("from .... import y", []),
        ("def f():\n import late\nimport soon", ["soon", "late"]),
        ("async def f():\n import late\nclass A:\n import soon", ["soon", "late"]),
        ("try:\n import a\nexcept ImportError:\n import b", ["a", "b"]),
        ("x = [y for y in z]", []),
        ("this is no Python", []),
        ("a = 1\0", []),
    ],
)
def test_imported_names(source, names):
    assert imported_names(source.encode(), "p.q") == names


def test_relative_imports_at_the_top_lead_nowhere():
    assert imported_names(b"from . import x", "") == []


def test_installed_is_what_came_with_python_or_was_installed():
    assert is_installed(os.path.realpath(os.__file__))
    assert is_installed("/x/site-packages/y.py")
    assert is_installed("/x/dist-packages/y.py")
    assert not is_installed(os.path.realpath(__file__))


def test_the_file_of_a_loaded_module(project):
    folder = project({"own.py": "", "own_space/part.py": ""})

    assert users_own_file(__import__("own")) == str(folder / "own.py")
    for module in (__import__("own_space"), sys, os, types.ModuleType("own_ghost"), None):
        assert users_own_file(module) is None


def test_why_a_module_is_not_there():
    import cloudpickle
    import numpy

    python = ".".join(map(str, sys.version_info[:3]))
    assert why_not_served("numpy.linalg")[:2] == ("numpy", numpy.__version__)
    assert why_not_served("cloudpickle")[:2] == ("cloudpickle", cloudpickle.__version__)
    assert why_not_served("json.tool") == ("Python", python, "its Python lacks")
    assert why_not_served("tests.support")[0] == "tests"
    assert "modules=" in why_not_served("tests.support")[2]
    for name in ("own_missing", "own_missing.part", "json.part", None, "a-b"):
        assert why_not_served(name) is None


def test_a_package_that_was_installed_by_no_rules(tmp_path, monkeypatch):
    write(tmp_path, {"site-packages/own_copied.py": ""})
    monkeypatch.syspath_prepend(tmp_path / "site-packages")

    for _ in range(2):
        assert why_not_served("own_copied")[:2] == ("own_copied", "")


def test_paths_are_taken_as_they_are_where_the_current_folder_is_gone(monkeypatch):
    def gone():
        raise FileNotFoundError(2, "No such file or directory")

    module = types.ModuleType("own")
    module.__spec__ = ModuleSpec("own", None, origin="lib/own.py")
    module.__spec__.has_location = True
    monkeypatch.setattr(os, "getcwd", gone)

    assert users_own_file(module) == "lib/own.py"
