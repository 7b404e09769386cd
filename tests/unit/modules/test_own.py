"""What a worker takes from the client although this machine has something of that name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

import pytest

from remote_executor.modules.own import OwnFinder
from remote_executor.payload.copy_digests import copy_digest, file_signature


class Late:
    """Stands in for the finder that asks the client."""

    def __init__(self, folder):
        self.folder = folder
        self.asked = []

    def find_spec(self, name, path=None, target=None):
        return None

    def find_own(self, name, target=None):
        self.asked.append(name)
        place = self.folder / f"{name}.py"
        return importlib.util.spec_from_file_location(name, place) if place.exists() else None

    def ask_copy(self, name, *, whole):
        place = str(self.folder / f"{name}.py")
        return copy_digest(place, None) if whole else file_signature(place)


@pytest.fixture
def ends(tmp_path, monkeypatch):
    """Return the finder, what it asks, its warnings, and the folders of both ends."""
    here, client = tmp_path / "here", tmp_path / "client"
    here.mkdir()
    client.mkdir()
    late, warnings = Late(client), []
    finder = OwnFinder(late, warnings.append)
    before = dict(sys.modules)
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path, late])
    monkeypatch.syspath_prepend(here)
    yield finder, late, warnings, here, client
    for name in set(sys.modules) - set(before):
        del sys.modules[name]
    sys.modules.update(before)


def test_another_module_of_that_name_here_is_not_taken(ends):
    finder, _, warnings, here, client = ends
    (here / "own_one.py").write_text("PLACE = 'here'\n")
    (client / "own_one.py").write_text("PLACE = 'client'\n")
    finder.claim(["own_one"], [])

    assert importlib.import_module("own_one").PLACE == "client"
    (warning,) = warnings
    assert "'own_one'" in warning
    assert str(here / "own_one.py") in warning


def test_the_same_here_is_taken(ends):
    finder, late, warnings, here, client = ends
    for folder in (here, client):
        (folder / "own_one.py").write_text("PLACE = __file__\n")
    finder.claim(["own_one"], [])

    assert str(here / "own_one.py") == importlib.import_module("own_one").PLACE
    assert (late.asked, warnings) == ([], [])


def test_what_was_loaded_before_is_let_go(ends):
    finder, _, _, here, client = ends
    (here / "own_one.py").write_text("PLACE = 'here'\n")
    (here / "own_same.py").write_text("PLACE = 'here'\n")
    (client / "own_one.py").write_text("PLACE = 'client'\n")
    (client / "own_same.py").write_text("PLACE = 'here'\n")
    before = importlib.import_module("own_one"), importlib.import_module("own_same")
    sys.modules["own_one.part"] = ModuleType("own_one.part")
    finder.claim(["own_one", "own_same"], [])

    assert "own_one.part" not in sys.modules
    assert importlib.import_module("own_one") is not before[0]
    assert importlib.import_module("own_same") is before[1]


def test_a_module_that_the_client_would_find_does_not_end_one_that_is_loaded(ends):
    finder, _, _, here, client = ends
    (here / "own_one.py").write_text("PLACE = 'here'\n")
    (client / "own_one.py").write_text("PLACE = 'client'\n")
    before = importlib.import_module("own_one")
    finder.claim([], ["own_one"])

    assert importlib.import_module("own_one") is before


def test_a_claim_that_the_client_does_not_keep(ends):
    """A name that it would find, it thought: then what is here is taken."""
    finder, _, warnings, here, _ = ends
    (here / "own_one.py").write_text("PLACE = 'here'\n")
    finder.claim([], ["own_one"])

    assert importlib.import_module("own_one").PLACE == "here"
    assert warnings == []


def test_what_a_worker_runs_on_stays(ends):
    finder, *_ = ends
    before = sys.modules["cloudpickle"] = sys.modules.get("cloudpickle") or ModuleType("x")
    finder.claim(["cloudpickle", "remote_executor"], ["tblib"])

    assert sys.modules["cloudpickle"] is before
    assert "remote_executor" in sys.modules
    assert finder.find_spec("tblib") is None
