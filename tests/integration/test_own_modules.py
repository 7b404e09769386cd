"""
Modules of the user's own on servers that have none of them (K7, K21, K22).

The client's modules are files of the test's own folder, which only this process imports from. That
a server does not read them by chance is seen to by the server itself, see ``no_access``.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from remote_executor import FarmExecutor, RemoteError, RemoteModuleNotFound, TaskTimeout
from tests.integration.conftest import ROOT, environment
from tests.support import tasks
from tests.support.faults import Proxy, wait_gone
from tests.support.packages import Questions, write_package
from tests.support.pythons import find_pythons
from tests.support.scale import scaled
from tests.support.tools import missing
from tests.support.waiting import wait_until

LIMIT = scaled(25)

NO_ACCESS = """
import os, sys

FORBIDDEN = os.path.realpath(os.environ["FORBIDDEN_FOLDER"])

def look(event, args):
    if event in ("open", "os.listdir", "os.scandir") and args and isinstance(args[0], (str, bytes)):
        path = os.path.realpath(os.fsdecode(args[0]))
        if path == FORBIDDEN or path.startswith(FORBIDDEN + os.sep):
            raise PermissionError(13, "the server has no access to the project", path)

sys.addaudithook(look)
"""


@pytest.fixture
def serve_apart(serve, tmp_path):
    """Return a function that starts a server in an empty folder, without access to another."""

    def start(forbidden, **settings):
        extra = tmp_path / "extra"
        extra.mkdir(exist_ok=True)
        (extra / "no_access.py").write_text(NO_ACCESS)
        env = environment(FORBIDDEN_FOLDER=str(forbidden))
        env["PYTHONPATH"] += os.pathsep + str(extra)
        return serve("--preload", "no_access", env=env, **settings)

    return start


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Write files into a folder that only this process imports from, and return the folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)

    def write(**files):
        for name, text in files.items():
            path = folder / (name.replace("__", "/") + ".py")
            if name.endswith("__init"):
                path = folder / name[:-6].replace("__", "/") / "__init__.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()
        return folder

    yield write
    for name in set(sys.modules) - before:
        if name.partition(".")[0][:3] == "own":
            del sys.modules[name]


def load(name):
    return importlib.import_module(name)


def run(executor, function, *args):
    return executor.submit(function, *args).result(LIMIT)


class Slow:
    """
    What answers an executor's servers, and takes its time for the module ``own``.

    Args:
        executor: The executor.
        pause: Seconds that it takes longer.
    """

    def __init__(self, executor, pause):
        self.modules = executor._driver.settings.modules
        self.pause = pause
        self.longest = 0.0
        executor._driver.settings.modules = self

    def answer(self, question):
        began = time.monotonic()
        if question == {"modules": ["own"]}:
            time.sleep(self.pause)
        found = self.modules.answer(question)
        self.longest = max(self.longest, time.monotonic() - began)
        return found


def test_what_is_shared_may_be_of_the_programs_own_modules(project, serve_apart):
    """K7."""
    folder = project(
        own_models="""
class Model:
    def __init__(self):
        self.weights = [1, 2]

    def apply(self, x):
        self.weights.append(x)
        return sum(self.weights)
"""
    )
    server = serve_apart(folder)
    with FarmExecutor(addresses=[server.address]) as executor:
        model = executor.share(load("own_models").Model())

        assert [run(executor, lambda m: m.apply(5), model) for _ in range(3)] == [8] * 3
        assert run(executor, load("own_models").Model.apply, model, 7) == 10


# -- whole programs


def test_a_project_of_several_packages(serve_apart, run_script):
    """Issue's proof: run from its folder, against a server elsewhere with an empty one."""
    folder = ROOT / "tests" / "projects" / "orders"
    server = serve_apart(folder)
    source = f"""
import os, runpy, sys
os.chdir({str(folder)!r})
sys.path[0] = {str(folder)!r}
sys.path.insert(0, os.path.join({str(folder)!r}, "src"))
sys.argv[1:] = [{server.address!r}]
sys.dont_write_bytecode = True
runpy.run_path("main.py", run_name="__main__")
"""

    assert run_script(source) == (0, "fine\n", "")
    assert "no access" not in server.log.read_text()


def test_a_module_of_a_package_as_the_program(project, addresses, run_script):
    """``python -m``: functions of ``__main__`` import relative to its package, also there."""
    folder = project(
        ownpkg__init="",
        ownpkg__near="VALUE = 3\nclass Thing:\n    pass\n",
        ownpkg__program=f"""
from remote_executor import FarmExecutor
from .near import Thing

def work(thing):
    from . import near
    from .near import VALUE
    assert type(thing) is Thing is near.Thing
    return VALUE

if __name__ == "__main__":
    with FarmExecutor(addresses={addresses!r}) as executor:
        print(executor.submit(work, Thing()).result(20))
        print(executor.submit(lambda: work(Thing())).result(20))
""",
    )
    source = f"""
import runpy, sys
sys.path.insert(0, {str(folder)!r})
runpy.run_module("ownpkg.program", run_name="__main__", alter_sys=True)
"""

    assert run_script(source) == (0, "3\n3\n", "")


# -- what travels


def test_a_module_beside_the_script_on_a_server_that_has_it_not(project, addresses):
    project(own="import os\nSTATE = []\ndef add(x):\n    STATE.append(x)\n    return STATE\n")
    own = load("own")
    with FarmExecutor(addresses=addresses[:1]) as executor:
        assert run(executor, own.add, 1) == [1]
        assert run(executor, own.add, 2) == [1, 2], "one module, one state"
    assert own.STATE == []


def test_instances_of_its_classes_are_the_clients(project, addresses):
    """K21, K22, L10: classes, enum members and module singletons keep their identity."""
    project(
        own="""
import enum
class Colour(enum.Enum):
    RED = 1
class Point:
    def __init__(self, x): self.x = x
class Lonely:
    def __reduce__(self): return "ONE"
ONE = Lonely()
def same(*args): return args
"""
    )
    own = load("own")
    point = own.Point(3)
    with FarmExecutor(addresses=addresses[:1]) as executor:
        colour, cls, one, again = run(executor, own.same, own.Colour.RED, own.Point, own.ONE, point)
        assert colour is own.Colour.RED
        assert cls is own.Point
        assert one is own.ONE
        assert (type(again), again.x) == (own.Point, 3)
        assert run(executor, lambda: point.x + own.Point(4).x) == 7


def test_a_batch_of_a_map(project, addresses):
    project(own="def double(x):\n    return 2 * x\n")
    own = load("own")
    with FarmExecutor(addresses=addresses) as executor:
        assert list(executor.map(own.double, range(500))) == [2 * i for i in range(500)]


def test_an_initializer_of_an_own_module(project, addresses):
    project(
        own="""
READY = None
def prepare(x):
    global READY
    READY = x
def look():
    return READY
"""
    )
    own = load("own")
    with FarmExecutor(addresses=addresses[:1], initializer=own.prepare, initargs=(5,)) as executor:
        assert run(executor, own.look) == 5


def test_imports_in_threads_of_a_task(project, addresses):
    """Any thread may import, also while the main thread does."""
    names = [f"own_part{i}" for i in range(6)]
    project(
        own=f"""
import importlib, threading
NAMES = {names}
def work():
    found = {{}}
    def load(name):
        found[name] = importlib.import_module(name).VALUE
    threads = [threading.Thread(target=load, args=(name,)) for name in NAMES]
    for thread in threads: thread.start()
    load("own_part0")
    for thread in threads: thread.join()
    return found
""",
        **{name: f"VALUE = {i}\n" for i, name in enumerate(names)},
    )
    own = load("own")
    with FarmExecutor(addresses=addresses[:1]) as executor:
        assert run(executor, own.work) == {name: i for i, name in enumerate(names)}


def test_a_thread_that_outlives_its_task_may_import(project, addresses):
    project(
        own="""
import threading
BOX = []
GO = threading.Event()
def start():
    def late():
        GO.wait(20)
        import own_late
        BOX.append(own_late.VALUE)
    threading.Thread(target=late).start()
def go():
    GO.set()
def look():
    return BOX
""",
        own_late="VALUE = 4\n",
    )
    own = load("own")
    with FarmExecutor(addresses=addresses[:1]) as executor:
        run(executor, own.start)
        run(executor, own.go)
        wait_until(lambda: run(executor, own.look) == [4], 20)


def test_a_child_that_a_task_forked_hears_that_nobody_is_to_be_asked(project, addresses):
    project(
        own="""
import importlib, os
def work():
    pid = os.fork()
    if not pid:
        try:
            importlib.import_module("own_late")
        except ModuleNotFoundError:
            os._exit(7)
        os._exit(8)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, importlib.import_module("own_late").VALUE
""",
        own_late="VALUE = 4\n",
    )
    own = load("own")
    with FarmExecutor(addresses=addresses[:1]) as executor:
        assert run(executor, own.work) == (7, 4)


def test_a_path_that_was_added_after_the_start(project, tmp_path, embedded, monkeypatch):
    """The embedded server's workers have the ``sys.path`` of before, and ask for the rest."""
    folder = tmp_path / "later"
    folder.mkdir()
    (folder / "own_later.py").write_text("def f():\n    return __file__\n")
    monkeypatch.syspath_prepend(folder)

    assert run(embedded, load("own_later").f) == str(folder / "own_later.py")
    del sys.modules["own_later"]


def test_modules_in_a_zip_file(project, addresses, monkeypatch):
    """As in a program that ``zipapp`` made."""
    archive = project(own_loose="") / "own.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("own_zipped/__init__.py", "")
        made.writestr("own_zipped/table.txt", "42")
        made.writestr(
            "own_zipped/tasks.py",
            "from importlib.resources import files\n"
            "from . import helper\n"
            "def read():\n"
            "    return helper.number(files('own_zipped').joinpath('table.txt').read_text())\n",
        )
        made.writestr("own_zipped/helper.py", "def number(text):\n    return int(text)\n")
    monkeypatch.syspath_prepend(archive)

    with FarmExecutor(addresses=addresses) as ex:
        assert run(ex, load("own_zipped.tasks").read) == 42


def test_what_was_edited_is_sent_again(project, addresses):
    """... to workers that have not loaded it yet."""
    folder = project(own="def f():\n    return 1\n")
    own = load("own")
    with FarmExecutor(addresses=addresses[:1], max_tasks_per_child=1) as executor:
        assert run(executor, own.f) == 1
        (folder / "own.py").write_text("def f():\n    return 'two'\n")
        assert run(executor, own.f) == "two"


@pytest.mark.parametrize("where", ["embedded", "server"])
def test_what_was_reloaded_here_is_reloaded_there(project, addresses, where):
    """... as IPython's autoreload does, before the next task, with the modules it uses."""
    folder = project(own="import own_part\ndef f():\n    return own_part.g()\n")
    project(own_part="def g():\n    return 1\nKEPT = []\ndef keep():\n    KEPT.append(1)\n")
    own, part = load("own"), load("own_part")
    where = {} if where == "embedded" else {"addresses": addresses[:1]}
    with FarmExecutor(1, **where) as executor:
        assert run(executor, own.f) == 1
        assert run(executor, part.g) == 1
        (folder / "own_part.py").write_text("def g():\n    return 'two'\n")
        importlib.reload(part)
        assert run(executor, own.f) == "two"
        assert run(executor, part.g) == "two"
        (folder / "own_part.py").write_text("def g(:\n")
        with pytest.raises(SyntaxError):
            importlib.reload(part)
        assert run(executor, own.f) == "two", "it stays as it is, here and there"


def test_a_reload_is_nothing_to_workers_that_do_not_have_the_module(project, addresses):
    project(own="def f():\n    return 1\n", own2="")
    own, own2 = load("own"), load("own2")
    with FarmExecutor(addresses=addresses[:1]) as executor:
        assert run(executor, own.f) == 1
        importlib.reload(own2)
        assert run(executor, own.f) == 1


def test_a_farm_in_a_task_serves_on_what_it_was_served(project, addresses):
    project(
        own="""
from remote_executor import FarmExecutor
def outer(address):
    with FarmExecutor(addresses=address) as executor:
        return executor.submit(inner).result()
def inner():
    import own_inner
    return own_inner.VALUE
""",
        own_inner="VALUE = 6\n",
    )
    load("own_inner")
    own = load("own")
    with FarmExecutor(addresses=addresses[:1]) as executor:
        assert run(executor, own.outer, addresses[1]) == 6


def test_a_server_with_another_python(project, serve, tmp_path):
    """K68: sources travel, never bytecode, so its minor version does not matter."""
    mine = "{}.{}".format(*sys.version_info)
    others = [path for version, path in find_pythons().items() if version != mine]
    if not others:
        missing(f"another CPython than {mine}", "3.10 to 3.15, in PATH or by pyenv")
    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    for name in ("cloudpickle", "tblib"):
        folder = os.path.dirname(load(name).__file__)
        (borrowed / name).symlink_to(folder)
    env = environment()
    env["PYTHONPATH"] = f"{ROOT}{os.pathsep}{borrowed}"
    project(
        own__init="from .part import Point, where\n",
        own__part="""
import dataclasses, sys

@dataclasses.dataclass
class Point:
    x: int

def where(point):
    return Point(point.x + 1), [(lambda i: i * 2)(i) for i in range(3)], sys.version_info[:2]
""",
    )
    own = load("own")
    server = serve(workers=1, python=others[-1], env=env)
    with FarmExecutor(addresses=[server.address]) as executor:
        point, doubled, version = run(executor, own.where, own.Point(1))
    assert (type(point), point.x, doubled) == (own.Point, 2, [0, 2, 4])
    assert version != sys.version_info[:2]


# -- once, and through cuts


def test_a_source_crosses_once_a_server(project, serve):
    """... though both of its workers load it; counted on the wire."""
    text = (
        "VALUE = 1\n# "
        + os.urandom(150_000).hex()
        + "\ndef pid():\n    import os\n    return os.getpid()\n"
    )
    project(own=text)
    own = load("own")
    server = serve(workers=2)
    with Proxy(server.address) as proxy, FarmExecutor(addresses=[proxy.address]) as executor:
        assert len(set(executor.broadcast(own.pid))) == 2

        assert len(text) < proxy.forwarded < 1.5 * len(text)


def test_a_large_package_takes_few_round_trips(tmp_path, addresses, monkeypatch):
    """Issue's bar: at most 3 a package level; what sources import comes ahead of time."""
    write_package(tmp_path, "own", levels=5, modules=50)
    monkeypatch.syspath_prepend(tmp_path)
    own = load("own")
    with FarmExecutor(addresses=addresses[:1]) as executor:
        questions = Questions(executor)
        assert run(executor, own.count) == 50
        assert questions.count <= 2
    # The same without a client that has loaded it, and found by a name that no source shows.
    for name in [name for name in sys.modules if name.partition(".")[0][:3] == "own"]:
        del sys.modules[name]

    def work():
        return importlib.import_module("own.level1.level2.level3.level4.part3").VALUE

    with FarmExecutor(addresses=addresses[:1]) as executor:
        questions = Questions(executor)
        assert run(executor, work) == 3
        assert questions.count <= 2


def test_round_trips_stay_short_while_a_worker_imports_many_modules(project, serve):
    """Answers are made on a thread of their own: results and heartbeats do not wait for them."""
    names = [f"own_part{number}" for number in range(130)]
    body = "".join(f"def f{i}(x):\n    return x + {i}\n" for i in range(100))
    project(own="def work():\n    import own_all\n    return own_all.COUNT\n")
    project(own_all=f"import {', '.join(names)}\nCOUNT = {len(names)}\n")
    project(**dict.fromkeys(names, body))
    own = load("own")
    server = serve(workers=2)
    with FarmExecutor(2, addresses=[server.address]) as executor:
        executor.wait_for_workers(2, LIMIT)
        slow = Slow(executor, scaled(3))
        future = executor.submit(own.work)
        longest = 0.0
        while not future.done():
            began = time.monotonic()
            assert run(executor, abs, -1) == 1
            longest = max(longest, time.monotonic() - began)
        assert future.result() == len(names)
    assert longest < slow.longest / 2


def test_the_thread_that_answers_ends_with_the_executor(project, addresses):
    def count():
        return sum(each.name == "remote_executor answers" for each in threading.enumerate())

    project(own="def f():\n    return 1\n")
    own = load("own")
    before = count()
    with FarmExecutor(addresses=addresses[:1]) as executor:
        assert run(executor, own.f) == 1
        assert count() == before + 1
    assert count() == before


def test_a_cut_while_a_worker_waits_for_a_module(project, addresses):
    """The question and the answer are sent again on the next link."""
    project(own="def f():\n    import own_large\n    return own_large.VALUE\n")
    folder = project(own_large="VALUE = 3\n# " + os.urandom(200_000).hex() + "\n")
    own = load("own")
    with Proxy(addresses[0]) as proxy, FarmExecutor(addresses=[proxy.address]) as executor:
        executor.wait_for_workers(1, LIMIT)
        proxy.cut_after(100_000)
        assert run(executor, own.f) == 3
        assert proxy.links == 2
    assert folder.exists()


def test_a_client_that_is_busy_in_a_callback_answers_later(project, addresses, tmp_path):
    project(own="def f():\n    import own_late\n", own_late="")
    own = load("own")
    entered, go = threading.Event(), threading.Event()

    def block(_):
        entered.set()
        go.wait(LIMIT)

    with FarmExecutor(addresses=addresses[:1]) as executor:
        first = executor.submit(tasks.record_and_wait, tmp_path / "ran", 1, tmp_path / "go")
        first.add_done_callback(block)
        (tmp_path / "go").touch()
        assert entered.wait(LIMIT)
        future = executor.submit(own.f)
        assert not future.done()
        go.set()
        assert future.result(LIMIT) is None


def test_a_task_that_waits_for_a_module_ends_at_its_timeout(project, addresses, tmp_path):
    """The link stalls, so no answer comes; the server ends the worker all the same."""
    began, go = tmp_path / "began", tmp_path / "go"
    project(
        own="""
import os, time
def f(began, go):
    open(began, "w").write(str(os.getpid()))
    while not os.path.exists(go):
        time.sleep(0.01)
    import own_missing
"""
    )
    own = load("own")
    with Proxy(addresses[0]) as proxy, FarmExecutor(addresses=[proxy.address]) as executor:
        future = executor.options(timeout=1.0).submit(own.f, began, go)
        wait_until(lambda: began.exists() and began.read_text(), 20)
        pid = int(began.read_text())
        proxy.stall()
        go.touch()
        wait_gone([pid], 20)
        proxy.flow()
        with pytest.raises(TaskTimeout):
            future.result(LIMIT)
        assert run(executor, abs, -1) == 1


def test_a_client_that_dies_while_it_is_asked(project, serve, run_script):
    """The worker that waits is ended with the session."""
    server = serve(workers=1)
    code, _, _ = run_script(
        f"""
import os, signal, threading
from remote_executor import FarmExecutor

def work():
    import something_that_nobody_has

if __name__ == "__main__":
    executor = FarmExecutor(addresses=[{server.address!r}], session_grace=0.5)
    executor._driver.settings.modules.answer = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    executor.submit(work).result()
"""
    )

    assert code == -signal.SIGKILL
    with FarmExecutor(addresses=[server.address]) as executor:
        assert run(executor, abs, -1) == 1


# -- one module comes from one place


@pytest.fixture
def serve_with(serve, tmp_path):
    """Return a function that starts a server which has modules of its own."""

    def start(**files):
        folder = tmp_path / "there"
        for name, text in files.items():
            path = folder / (name.replace("__init", "/__init__") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        env = environment()
        env["PYTHONPATH"] += os.pathsep + str(folder)
        return serve(workers=1, env=env)

    return start


def test_a_module_of_the_program_comes_before_pythons_own(project, addresses, monkeypatch):
    """... if it does so in the program."""
    project(wave="def f():\n    return 'mine'\n")
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    wave = load("wave")
    try:
        with FarmExecutor(addresses=addresses[:1]) as executor:
            assert run(executor, wave.f) == "mine"
            assert run(executor, lambda: importlib.import_module("wave").f()) == "mine"
    finally:
        del sys.modules["wave"]


@pytest.mark.parametrize("where", ["embedded", "elsewhere"])
def test_a_module_of_the_program_is_not_what_workers_have_loaded_of_python(
    tmp_path, addresses, where
):
    """cloudpickle imports ``inspect`` and ``uuid``, and other modules these."""
    text = "class Own:\n    pass\ndef dedent(text):\n    return 'mine'\n"
    for name in ("textwrap", "inspect", "uuid"):
        (tmp_path / f"{name}.py").write_text(text)
    place = [] if where == "embedded" else addresses[:1]
    (tmp_path / "program.py").write_text(f"""
import inspect, textwrap, uuid
def task(own):
    import textwrap as again
    return [each.dedent(" x") for each in (inspect, textwrap, uuid, again)], type(own) is uuid.Own
if __name__ == "__main__":
    from remote_executor import FarmExecutor
    with FarmExecutor(1, addresses={place!r} or None) as executor:
        assert executor.submit(textwrap.dedent, " x").result() == "mine"
        assert executor.submit(task, uuid.Own()).result() == (["mine"] * 4, True)
""")
    command = [sys.executable, str(tmp_path / "program.py")]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_module_that_was_not_loaded_comes_before_pythons_own(project, addresses):
    project(own="def f():\n    import wave\n    return wave.MINE\n")
    project(wave="MINE = 5\n")
    own = load("own")
    with FarmExecutor(addresses=addresses[:1]) as executor:
        assert run(executor, own.f) == 5


def test_another_copy_of_a_server_is_not_used_and_that_is_said(project, serve_with, capfd, caplog):
    project(ownpack__init="VERSION = 2\n", ownpack__fresh="VERSION = 2\n")
    fresh = load("ownpack.fresh")
    server = serve_with(ownpack__init="VERSION = 1\n")

    def versions():
        import ownpack

        return ownpack.VERSION, fresh.VERSION

    with FarmExecutor(addresses=[server.address]) as executor:
        assert run(executor, versions) == (2, 2)
        said = []

        def is_said():
            said.extend([caplog.text, *capfd.readouterr()])  # as logging is set up by others
            return "another 'ownpack'" in "".join(said)

        wait_until(is_said, 20)
    assert "the client's is used" in "".join(said)


def test_the_same_copy_of_a_server_is_used_with_what_lies_beside_it(project, serve_with, tmp_path):
    text = "def f():\n    return __file__\n"
    project(own=text)
    own = load("own")
    server = serve_with(own=text)
    with FarmExecutor(addresses=[server.address]) as executor:
        assert run(executor, own.f) == str(tmp_path / "there" / "own.py")


def test_a_copy_of_a_server_is_not_completed(project, serve_with):
    """With ``modules=`` that leaves it out of what is claimed, all of it comes from the server."""
    project(ownpack__init="VERSION = 2\n", ownpack__fresh="VERSION = 2\n", own2="")
    load("ownpack.fresh")
    server = serve_with(ownpack__init="VERSION = 1\n")
    with FarmExecutor(addresses=[server.address], modules=["own2"]) as executor:
        with pytest.raises(RemoteModuleNotFound, match="a copy of its own of ownpack"):
            run(executor, lambda: importlib.import_module("ownpack.fresh").VERSION)


def test_modules_that_are_loaded_later_are_claimed_then(project, serve_with):
    server = serve_with(own="def f():\n    return 1\n")
    with FarmExecutor(addresses=[server.address], max_tasks_per_child=2) as executor:
        assert run(executor, abs, -1) == 1
        project(own="def f():\n    return 2\n")
        own = load("own")
        assert [run(executor, own.f) for _ in range(3)] == [2] * 3, "by new workers, too"


# -- what does not travel


def test_modules_may_be_kept_at_home(project, addresses):
    project(own__init="", own__a="def f():\n    return 1\n", own2="def f():\n    return 2\n")
    a, own2 = load("own.a"), load("own2")
    with FarmExecutor(addresses=addresses[:1], modules=["own"]) as executor:
        assert run(executor, a.f) == 1
        with pytest.raises(RemoteModuleNotFound, match="'own2' of own2, which is not sent"):
            run(executor, own2.f)
    with FarmExecutor(addresses=addresses[:1], modules="never") as executor:
        with pytest.raises(RemoteModuleNotFound, match="modules="):
            run(executor, a.f)
        assert run(executor, abs, -1) == 1
    with pytest.raises(ValueError, match="modules"):
        FarmExecutor(modules="sometimes")


def test_an_installed_package_that_is_missing_there(tmp_path, addresses, monkeypatch):
    """The error names package, version here, and host; it is still a ModuleNotFoundError."""
    place = tmp_path / "site-packages"
    (place / "Shiny_Thing-2.5.dist-info").mkdir(parents=True)
    (place / "shiny.py").write_text("def f():\n    return 1\n")
    info = place / "Shiny_Thing-2.5.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Shiny-Thing\nVersion: 2.5\n")
    (info / "RECORD").write_text("shiny.py,,\n")
    monkeypatch.syspath_prepend(place)
    with FarmExecutor(addresses=addresses[:1]) as executor:
        error = executor.submit(load("shiny").f).exception(LIMIT)
    del sys.modules["shiny"]

    assert isinstance(error, ModuleNotFoundError)
    assert isinstance(error, RemoteModuleNotFound)
    assert (error.name, error.package, error.version) == ("shiny", "Shiny-Thing", "2.5")
    assert error.host == os.uname().nodename
    assert "must be installed there" in str(error)
    assert "No module named 'shiny'" in str(error.__cause__), "the remote traceback"


def test_a_missing_import_is_the_tasks_to_catch(project, addresses):
    project(
        own="""
import importlib.util
def f():
    try:
        import nothing_like_this
    except ImportError as error:
        return type(error).__name__, importlib.util.find_spec("nothing_like_this")
"""
    )
    own = load("own")
    with FarmExecutor(addresses=addresses[:1]) as executor:
        assert run(executor, own.f) == ("ModuleNotFoundError", None)


def test_a_secret_in_a_package_stays_at_home_and_that_is_said(project, addresses, caplog):
    """The task's error says why, and so does a line of the client's log."""
    folder = project(
        own_kept__init="",
        own_kept__data="""
import pkgutil
from importlib.resources import files
def read(way):
    if way == "get_data":
        return pkgutil.get_data("own_kept", "credentials.json")
    file = files("own_kept") / "credentials.json"
    return getattr(file, way)()
def names():
    return sorted(each.name for each in files("own_kept").iterdir())
""",
    )
    (folder / "own_kept" / "credentials.json").write_text("{}")
    (folder / "own_kept" / "table.csv").write_text("1,2")
    own = load("own_kept.data")
    with FarmExecutor(addresses=addresses[:1]) as executor:
        for way in ("get_data", "read_text", "read_bytes", "is_file"):
            with pytest.raises(PermissionError, match=r"not served .* name is that of a secret"):
                run(executor, own.read, way)
        assert run(executor, own.names) == ["__init__.py", "data.py", "table.csv"]
    assert caplog.text.count("'credentials.json' of package own_kept is not served") == 1
    with FarmExecutor(addresses=addresses[:1], modules=["own_kept"]) as executor:
        assert run(executor, own.read, "read_text") == "{}"
        assert "credentials.json" in run(executor, own.names)


def test_files_of_the_client_that_a_hostile_server_may_want(project, addresses):
    """Whatever a worker asks for, it gets sources and data of the user's packages only."""
    folder = project(
        own__init="",
        own_ask="""
import sys
def ask(question):
    finder = sys.meta_path[-1]._finder
    fields, contents = finder._ask(question)
    return fields, list(map(bytes, contents))
""",
    )
    (folder / "secret.txt").write_text("secret")
    (folder / "own" / "out.py").symlink_to("/etc/passwd")
    (folder / "own" / "out.txt").symlink_to(folder / "secret.txt")
    own = load("own_ask")
    questions = [{"modules": [name]} for name in ("os", "..secret", "own.out", "own/../secret")]
    questions += [{"modules": ["pytest"]}, {"modules": ["__main__"]}, {"list": "pytest"}]
    questions += [
        {"file": ["own", path]}
        for path in ("../secret.txt", "out.txt", "out.py", "/etc/passwd", ".", "../../secret.txt")
    ]
    questions += [{}, {"file": 7}, {"modules": "own"}]
    with FarmExecutor(addresses=addresses[:1]) as executor:
        for question in questions:
            fields, contents = run(executor, own.ask, question)
            assert contents == []
            assert not fields.get("modules")
            assert not fields.get("files")
            assert fields.get("file") is None


# -- types that one end alone knows


def test_a_result_of_a_type_that_only_the_server_knows(tmp_path, serve):
    """Item 6: that one future has the error, and the text of the traceback."""
    (tmp_path / "server_only.py").write_text(
        "class Thing: pass\nclass Trouble(Exception): pass\ndef fail():\n    raise Trouble('x')\n"
    )
    env = environment()
    env["PYTHONPATH"] += os.pathsep + str(tmp_path)
    server = serve(workers=1, env=env)

    def make():
        import server_only

        return server_only.Thing()

    def fail():
        import server_only

        server_only.fail()

    with FarmExecutor(addresses=[server.address]) as executor:
        made, failed, fine = (executor.submit(each) for each in (make, fail, tasks.pid))
        error = made.exception(LIMIT)
        assert isinstance(error, RemoteError)
        assert "server_only" in str(error)
        assert "ModuleNotFoundError" in error.traceback_text
        error = failed.exception(LIMIT)
        assert isinstance(error, RemoteError)
        assert error.type_name == "server_only.Trouble"
        assert "in fail\n    raise Trouble('x')" in error.traceback_text
        assert fine.result(LIMIT) == run(executor, tasks.pid)


def test_many_clients_at_once(project, addresses):
    """Each session has its own modules, also under one name."""
    project(own="def f():\n    return 1\n")
    own = load("own")

    def client(_):
        with FarmExecutor(addresses=addresses[:1]) as executor:
            return run(executor, own.f)

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(client, range(3))) == [1, 1, 1]
