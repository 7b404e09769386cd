"""What the two ends call their Pythons, and what a worker does about a client of another one."""

from __future__ import annotations

import datetime
import pathlib
import pickle
import sys

from remote_executor.payload import pythons
from remote_executor.payload.pythons import Abroad, python_words


def test_a_worker_knows_of_a_client_of_another_python():
    """K68."""
    here = Abroad()
    here.settle(sys.implementation.name, tuple(sys.version_info[:3]))
    there = Abroad()
    there.settle("pypy", (3, 10, 1))

    assert here.client == ""
    assert there.client == "PyPy 3.10.1"
    assert python_words("cpython", (3, 9)) == "CPython 3.9"
    assert python_words("jython", (3, 9)) == "jython 3.9"


def test_modules_that_newer_pythons_renamed_are_found(monkeypatch):
    monkeypatch.setattr(pythons, "_RENAMED", {"pathlib._later": "pathlib", "json": "pathlib"})
    monkeypatch.delitem(sys.modules, "pathlib._later", raising=False)
    pythons.alias_renamed()

    # As Python 3.13 pickles it.
    assert pickle.loads(b"\x80\x04cpathlib._later\nPurePosixPath\n.") is pathlib.PurePosixPath
    assert sys.modules["json"] is not pathlib
    monkeypatch.delitem(sys.modules, "pathlib._later")


def test_time_zones_go_as_what_makes_them_again():
    """PyPy's own way names what CPython's time zones do not have."""
    named = datetime.timezone(datetime.timedelta(hours=2), "there")
    for zone in (datetime.timezone.utc, datetime.timezone(datetime.timedelta(hours=-3)), named):
        make, args = pythons.reduce_timezone(zone)

        assert (make(*args), make(*args).tzname(None)) == (zone, zone.tzname(None))
