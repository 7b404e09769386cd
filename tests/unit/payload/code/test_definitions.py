"""Classes mean in another process what they mean here: ``tests/support/class_programs.py``."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from remote_executor.payload.pickles import dump, dump_result, load
from tests.support import class_programs
from tests.support.class_programs import ALIKE_ONLY, NEEDS, NEWER, PROGRAMS, REFUSES
from tests.support.pythons import environment, find_pythons
from tests.support.scale import scaled
from tests.support.tools import require_module

PYTHONS = find_pythons()
OURS = f"3.{sys.version_info[1]}"


def minor(version):
    return int(version.partition(".")[2])


def half(python, what, given, folder, env):
    file = folder / "given"
    file.write_bytes(pickle.dumps(given))
    done = subprocess.run(
        [python, class_programs.__file__, what, str(file)],
        env=env,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return pickle.loads(file.read_bytes())


@pytest.fixture(scope="module", params=["alike", "to the oldest", "to the newest", "from them"])
def outcomes(request, tmp_path_factory):
    """Return for each program what its check gives here and in another process."""
    folder = tmp_path_factory.mktemp("programs")
    env = environment(tmp_path_factory.mktemp("site"))
    if request.param == "alike":
        names = [name for name, version in NEWER.items() if version <= sys.version_info]
        for name in names:
            for library in NEEDS[name]:
                require_module(library)
        pairs = [(sys.executable, sys.executable, names, ())]
    else:
        others = [version for version in PYTHONS if version != OURS]
        if not others:
            pytest.skip("there is only one Python on this machine")
        chosen = {"to the oldest": others[:1], "to the newest": others[-1:]}
        chosen = chosen.get(request.param, [others[0], others[-1]])
        pairs = []
        for version in chosen:
            least = min(minor(version), minor(OURS))
            names = [n for n, at in NEWER.items() if at <= (3, least) and not NEEDS[n]]
            ends = (sys.executable, OURS), (PYTHONS[version], version)
            if request.param == "from them":
                ends = ends[1], ends[0]
            foreign = (("cpython", (3, minor(ends[1][1]), 0)),)
            pairs.append((ends[0][0], ends[1][0], names, foreign))
    found = []
    for ours, theirs, names, foreign in pairs:
        sent = half(ours, "client", (names, foreign), folder, env)
        got = half(theirs, "worker", sent, folder, env)
        found += [(name, right, got[name]) for name, (_, right) in sent.items()]
    return request.param, found


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_class_means_there_what_it_means_here(name, outcomes):
    way, everything = outcomes
    found = [(right, got) for each, right, got in everything if each == name]
    if not found:
        pytest.skip("not for these Pythons")

    for right, got in found:
        if way != "alike" and name in ALIKE_ONLY:
            assert got.startswith("refused: class Made cannot be sent from CPython")
        elif name in REFUSES:
            assert got.startswith(f"CannotShip: {REFUSES[name]} cannot be sent from CPython")
        else:
            assert got == right


def test_there_are_programs():
    assert len(PROGRAMS) >= 35


def test_no_code_of_the_program_runs_to_make_a_class():
    ran = []

    class Meta(type):
        def __new__(cls, *args):
            ran.append("new")
            return super().__new__(cls, *args)

        def __init__(cls, *args):
            ran.append("init")

        def __setattr__(cls, name, value):
            ran.append("setattr")

    class Base(metaclass=Meta):
        def __init_subclass__(cls):
            ran.append("subclass")

    class Field:
        def __set_name__(self, owner, name):
            ran.append("name")

    class Local(Base):
        field = Field()

    body, _ = dump_result(Local)
    before = list(ran)
    _forget(Local, Base, Meta, Field)

    again = load(body)

    assert ran == before
    assert again is not Local
    assert type(again).__mro__[0].__name__ == "Meta"
    # Those that are made there run it.
    more = load(*dump(lambda: type(again)("More", (again,), {})))()
    assert more.__name__ == "More"


def _forget(*classes):
    """Let this process take what comes for classes that it has never met."""
    from cloudpickle import cloudpickle

    for cls in classes:
        tracker = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS.pop(cls)
        del cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID[tracker]


def test_the_hook_of_a_base_is_as_it_was():
    class Base:
        seen: list[str] = []  # noqa: RUF012

        def __init_subclass__(cls):
            Base.seen.append(cls.__name__)

    class Local(Base):
        pass

    hook = vars(Base)["__init_subclass__"]
    body, _ = dump_result(Local)
    _forget(Local)

    again = load(body)

    assert again.__mro__[1] is Base
    assert vars(Base)["__init_subclass__"] is hook
    assert Base.seen == ["Local"]
    assert not [name for name in vars(again) if "remote_executor" in name]
    type("Other", (Base,), {})
    assert Base.seen == ["Local", "Other"]


@pytest.mark.parametrize("way", [dump, dump_result])
def test_a_class_is_one_with_itself(way):
    class Local:
        def get(self):
            return Local

    assert load(*way((Local, Local())))[0] is Local
