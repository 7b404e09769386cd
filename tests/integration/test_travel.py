"""
Functions travel to other versions of Python, and results back.

By default between the newest and the oldest Python on this machine, both ways. All pairs::

    REMOTE_EXECUTOR_ALL_PARAMETERS=1 python -m pytest tests/integration/test_travel.py
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from remote_executor import FarmExecutor, RemoteError
from tests.support.pythons import MINORS, environment, find_pypy, find_pythons
from tests.support.scale import scaled
from tests.support.tools import missing

pytestmark = pytest.mark.slow

KINDS = Path(__file__).parents[1] / "support" / "kinds.py"
PROGRAM = KINDS.with_name("abroad.py")
ALL = bool(os.environ.get("REMOTE_EXECUTOR_ALL_PARAMETERS"))
ENDS = ["oldest", "newest"]
CPYTHONS = [f"3.{minor}" for minor in MINORS] if ALL else ENDS
PAIRS = [(ours, theirs) for ours in CPYTHONS for theirs in CPYTHONS if ALL or ours != theirs]
# Debian 12 has a PyPy that is too old, where this cannot be tried: tests/support/roots.py does so.
PYPY = find_pypy()
if PYPY is None or PYPY[1] >= (3, MINORS[0]):
    PAIRS += [("newest", "pypy3")] if not ALL else [(ours, "pypy3") for ours in CPYTHONS]


@pytest.fixture(scope="session")
def pythons():
    """Return the CPythons of this machine, also as "oldest" and "newest"."""
    found = find_pythons()
    paths = list(found.values())
    return {**found, "oldest": paths[0], "newest": paths[-1]}


@pytest.fixture(scope="session")
def travelling(tmp_path_factory):
    """Return an environment for any Python."""
    return environment(tmp_path_factory.mktemp("site"))


def choose(pythons, name):
    if name == "pypy3":
        if PYPY is None:
            missing("pypy3", "Debian 13: apt-get install pypy3")
        return PYPY[0]
    if name not in pythons:
        pytest.skip(f"Python {name} is not on this machine")
    return pythons[name]


@contextlib.contextmanager
def serving(python, folder, env):
    """Run a server, in an empty folder, and give its address."""
    folder.mkdir()
    address = f"unix:{folder / 'socket'}"
    command = [python, "-m", "remote_executor", "serve", "--unix", str(folder / "socket")]
    with subprocess.Popen(
        [*command, "--workers", "1"], cwd=folder, env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert "listening" in process.stdout.readline()
            yield address
        finally:
            process.terminate()
            process.stdout.read()


def run(python, script, *arguments, env):
    done = subprocess.run(
        [python, str(script), *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=scaled(50),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_kinds_of_function(ours, theirs, pythons, travelling, tmp_path):
    """K6, K7, K8, K10, K11, K12, K68, L1, L3-L8, L11, L16: right, or CannotShip, never else."""
    client, server = choose(pythons, ours), choose(pythons, theirs)
    if not ALL and client == server:
        pytest.skip("there is only one Python on this machine")

    with serving(server, tmp_path / "there", travelling) as address:
        found = run(client, KINDS, address, env=travelling)

    outcomes = found["outcomes"]
    wrong = {name: words for name, words in outcomes.items() if words != "right"}
    wrong = {name: words for name, words in wrong.items() if not words.startswith("CannotShip: ")}
    assert wrong == {}
    assert found["foreign"] is (client != server)
    assert len([words for words in outcomes.values() if words == "right"]) >= 60


@pytest.fixture(scope="module")
def abroad(pythons, travelling, tmp_path_factory):
    """Return a function that runs a part of the program here, with servers old and new."""
    client, server = pythons["newest"], pythons["oldest"]
    if client == server:
        pytest.skip("there is only one Python on this machine")
    folder = tmp_path_factory.mktemp("abroad")
    program = folder / "program.py"
    program.write_text(PROGRAM.read_text())
    with (
        serving(server, folder / "old", travelling) as old,
        serving(client, folder / "new", travelling) as new,
    ):
        yield lambda part: run(client, program, part, old, new, env=travelling)


def line_of(text):
    return next(
        n for n, line in enumerate(PROGRAM.read_text().splitlines(), start=1) if text in line
    )


def test_values_are_those_of_the_submit_before_any_server_has_answered(abroad):
    """L12, L13, L14: both forms are made, for nobody knows which it will be."""
    first, second, third, unsent, held = abroad("early")

    assert (first, second, third) == (10, [1], 20)
    assert "no_source() cannot be sent from" in unsent
    assert held[0] == 7


def test_maps_and_broadcasts_go_as_source(abroad):
    """L17: and items with bytecode in them are refused."""
    last, added, lengths, everywhere, function, item = abroad("maps")

    assert last == 999
    assert added == [1, 2, 3, 4, 5]
    assert lengths == [200_001] * 3
    assert everywhere == [1]
    assert function.startswith("CannotShip: no_source()")
    assert item.startswith("CannotShip: no_source()")


def test_tracebacks_have_the_clients_lines(abroad):
    """K20."""
    own, code, line, text = abroad("traceback")

    assert (own, code) == (True, 2)
    assert line == line_of("the very line")
    assert "raise Own(y)  # the very line" in text
    assert "program.py" in text


def test_what_cannot_be_sent_fails_at_submit(abroad):
    """K19, K68: where there are no other servers."""
    done, kind, function, ours, theirs, argument = abroad("refused")

    assert (done, kind, function, argument) == (True, "CannotShip", "no_source()", "CannotShip")
    assert ours.startswith("CPython 3.")
    assert theirs.startswith("CPython 3.")
    assert ours != theirs


def test_status_and_one_line_tell_what_differs(abroad):
    """K68."""
    differences, implementation, python, lines = abroad("told")

    assert len(differences) == len(lines) == 1
    assert differences[0].startswith(f"CPython {python} there, CPython 3.")
    assert differences[0].endswith(" here: functions travel as source")
    assert implementation == "cpython"
    assert differences[0] in lines[0]


def test_modules_that_the_server_lacks(abroad):
    """K7: they go as source, too."""
    assert abroad("own_module") == [15, True, 3, 12]


def test_shared_data_goes_to_any_python(abroad):
    """K68."""
    captured, given, mapped, refused = abroad("shared")

    assert (captured, given, mapped) == (3, 300_000, [3, 3, 3])
    assert refused.startswith("CannotShip: the shared Own cannot be sent from CPython 3.")
    assert refused.endswith("objects of what the server can import")


def test_a_farm_of_both_pythons(abroad, pythons):
    """K68: functions run on both; what cannot be sent fails on the one alone."""
    found, kinds, some = abroad("mixed")

    assert len(found) == 2
    assert set(kinds) <= {"CannotShip", "NoneType"}
    assert some


def test_an_initializer_that_cannot_be_sent_is_an_error_for_all(abroad):
    words = abroad("initializer_refused")

    assert words.startswith("CannotShip: no_source()")


def test_a_server_of_another_python_that_comes_late(abroad):
    """L14: what was submitted before is sent if it captured nothing that may change."""
    results, kinds = abroad("late")

    assert results == [1] * 20
    assert set(kinds) <= {"CannotShip", "NoneType"}


LIBRARY = """
class Shape:
    pass

class {extra}(Shape):
    pass

def make(*_):
    return {extra}()
"""


def test_a_library_of_another_version_at_the_other_end(tmp_path, monkeypatch):
    """K21: the one future concerned gets RemoteError, with both versions in its text."""
    for folder, version, extra in (("ours", "2.0", "Circle"), ("theirs", "1.0", "Square")):
        place = tmp_path / folder / "site-packages"
        (place / f"shapes_of_a_test-{version}.dist-info").mkdir(parents=True)
        (place / "shapes_of_a_test.py").write_text(LIBRARY.format(extra=extra))
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "theirs" / "site-packages")}
    monkeypatch.syspath_prepend(tmp_path / "ours" / "site-packages")
    import shapes_of_a_test as shapes

    versions = "shapes-of-a-test is 2.0 here and 1.0 on unix:"
    with (
        serving(sys.executable, tmp_path / "there", env) as address,
        FarmExecutor(addresses=[address]) as ex,
    ):
        assert type(ex.submit(shapes.Shape).result(scaled(20))) is shapes.Shape
        sent = ex.submit(isinstance, shapes.Circle(), object).exception(scaled(20))
        made = ex.submit(shapes.make).exception(scaled(20))
        with pytest.raises(RemoteError) as caught:
            list(ex.map(shapes.make, range(2)))
        assert ex.submit(abs, -1).result(scaled(20)) == 1
    for error in (sent, made, caught.value):
        assert type(error) is RemoteError
        assert "AttributeError" in str(error)
        assert versions in str(error)
    del sys.modules["shapes_of_a_test"]
