"""Results that last: maps and tasks that are resumed, whatever has ended the program before."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import textwrap

import pytest

from remote_executor import Journal, JournalError, PayloadError, Retry
from remote_executor.cli import main
from remote_executor.client.keeping import journal_of
from remote_executor.parallel import pmap
from tests.integration.conftest import environment
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(60)


@pytest.fixture
def ex(embedded):
    """Return an executor that the module shares."""
    return embedded


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "run.db")
    yield made
    made.close()


@pytest.fixture
def ran(tmp_path):
    """Return a function that tells which items were run, in order, and forgets them."""
    (tmp_path / "ran").touch()

    def tell():
        lines = (tmp_path / "ran").read_text().split()
        (tmp_path / "ran").write_text("")
        return sorted(map(int, lines))

    tell.path = str(tmp_path / "ran")
    return tell


def note(path, i):
    with open(path, "a", encoding="ascii") as file:
        file.write(f"{i}\n")
    return i * i


def note_odd(path, i):
    if i % 2:
        raise ValueError(i)
    return note(path, i)


def squares(items):
    return [i * i for i in items]


# -- maps


@pytest.mark.parametrize("how", [{}, {"chunksize": 3}, {"buffersize": 4}])
def test_a_second_run_yields_what_is_there_and_runs_the_rest(ex, journal, ran, how):
    def run(items):
        return list(ex.starmap(note, [(ran.path, i) for i in items], resume=journal, **how))

    assert run(range(10)) == squares(range(10))
    assert ran() == list(range(10))
    assert run(range(10)) == squares(range(10))
    assert ran() == []
    mixed = [20, 3, 21, 22, 4, 5, 23, 6]
    assert run(mixed) == squares(mixed)
    assert ran() == [20, 21, 22, 23]


def test_a_path_will_do_and_views_say_it_too(own, tmp_path, ran):
    rows = [(ran.path, i) for i in range(5)]
    path = tmp_path / "run.db"

    assert list(own.starmap(note, rows, resume=path)) == squares(range(5))
    view = own.options(resume=str(path))
    assert list(view.starmap(note, rows)) == squares(range(5))
    assert pmap(note, [ran.path] * 7, range(7), executor=view) == squares(range(7))
    assert ran() == list(range(7))
    journal_of(path).close()


def test_unordered_and_asynchronous_maps(ex, journal, ran):
    paths = [ran.path] * 10
    assert sorted(ex.map_unordered(note, paths, range(10), resume=journal)) == squares(range(10))

    async def numbers():
        for i in range(14):
            yield i

    async def run(source):
        return [each async for each in ex.amap(note, [ran.path] * 14, source, resume=journal)]

    assert asyncio.run(asyncio.wait_for(run(range(12)), LIMIT)) == squares(range(12))
    assert asyncio.run(asyncio.wait_for(run(numbers()), LIMIT)) == squares(range(14))
    assert ran() == list(range(14))


def test_errors_are_not_kept_and_name_their_items(ex, journal, ran):
    rows = [(ran.path, i) for i in range(8)]
    found = list(ex.starmap(note_odd, rows, resume=journal, errors="return"))
    assert found[::2] == squares(range(0, 8, 2))
    assert ["item 7 of" in each.__notes__[0] for each in found[1::2]] == [False] * 3 + [True]
    again = list(ex.starmap(note_odd, rows, resume=journal, errors="return"))
    assert [type(each) for each in again[1::2]] == [ValueError] * 4
    assert "item 7 of note_odd" in again[7].__notes__[0]
    assert list(ex.starmap(note_odd, rows, resume=journal, errors="skip")) == found[::2]
    with pytest.raises(ValueError, match="1") as caught:
        list(ex.starmap(note_odd, rows, resume=journal))
    assert "item 1 of" in caught.value.__notes__[0]

    assert ran() == [0, 2, 4, 6]


def test_what_came_before_an_error_is_there_the_next_time(ex, journal, ran):
    rows = [(ran.path, i) for i in (0, 2, 4, 1)]
    with pytest.raises(ValueError, match="1"):
        list(ex.starmap(note_odd, rows, resume=journal, chunksize=4))
    assert ran() == [0, 2, 4]

    with pytest.raises(ValueError, match="1"):
        list(ex.starmap(note_odd, rows, resume=journal, chunksize=4))
    assert ran() == []


def fail_once(path, i):
    note(path, i)
    with open(f"{path}{i}", "a", encoding="ascii") as file:
        file.write("x")
    if os.path.getsize(f"{path}{i}") == 1:
        raise OSError(i)
    return i


def test_items_that_are_tried_again_are_kept_when_they_went_well(ex, journal, ran):
    rows = [(ran.path, i) for i in range(20)]
    retry = Retry(2, OSError, 0)

    assert list(ex.starmap(fail_once, rows, resume=journal, retry=retry)) == list(range(20))
    assert ran() == sorted([*range(20)] * 2)
    assert list(ex.starmap(fail_once, rows, resume=journal)) == list(range(20))
    assert ran() == []


def test_a_function_that_was_changed_is_run_again_and_that_is_said_once(ex, journal, ran, caplog):
    def version(n):
        space = {"__name__": "__main__", "note": note}
        exec(f"def work(path, i):\n    return note(path, i) + {n}", space)
        return space["work"]

    rows = [(ran.path, i) for i in range(4)]
    assert list(ex.starmap(version(0), rows, resume=journal)) == squares(range(4))
    assert ran() == list(range(4))
    for _ in range(2):
        assert list(ex.starmap(version(1), rows, resume=journal)) == [1, 2, 5, 10]
    assert ran() == list(range(4))

    said = [each for each in caplog.messages if "as it was before" in each]
    assert len(said) == 1
    assert "the code of the function" in said[0]


def test_a_key_of_ones_own(ex, tmp_path, ran):
    journal = Journal(tmp_path / "run.db", key=lambda path, i: i % 3)
    rows = [(ran.path, i) for i in range(3)]

    assert list(ex.starmap(note, rows, resume=journal)) == [0, 1, 4]
    assert (
        list(ex.starmap(note, [(ran.path, i) for i in range(6)], resume=journal)) == [0, 1, 4] * 2
    )
    assert ran() == [0, 1, 2]
    journal.close()


def test_large_results(own, journal):
    numpy = pytest.importorskip("numpy")
    for _ in range(2):
        found = list(own.map(numpy.full, [300_000] * 3, range(3), resume=journal))
        assert [each.sum() for each in found] == [0, 300_000, 600_000]
    assert len(journal.entries()) == 3


def test_an_item_without_a_key_is_an_error_at_once(ex, journal):
    with pytest.raises(PayloadError, match="the key of a result"):
        list(ex.map(tasks.same, [(i for i in "ab")], resume=journal))


# -- single tasks


def test_tasks_are_resumed_too(ex, journal, ran):
    view = ex.options(journal=journal)
    for _ in range(2):
        futures = [view.submit(note, ran.path, i) for i in range(5)]
        assert [each.result(LIMIT) for each in futures] == squares(range(5))
    assert ran() == list(range(5))
    assert view.submit(note, path=ran.path, i=2).result(LIMIT) == 4
    assert isinstance(view.submit(note_odd, ran.path, 1).exception(LIMIT), ValueError)
    assert isinstance(view.submit(tasks.fail).exception(LIMIT), RuntimeError)
    assert ran() == [2]
    assert len(journal.entries()) == 6


def test_a_result_is_there_before_its_future_is(ex, journal):
    future = ex.options(journal=journal).submit(tasks.same, "x")
    seen = []
    future.add_done_callback(lambda _: seen.append(len(journal.entries())))
    wait_until(lambda: seen)

    assert seen == [1]


# -- what cannot be written


@pytest.mark.parametrize("how", ["folder", "text"])
def test_a_file_that_cannot_be_used_is_an_error_at_once(ex, tmp_path, how):
    path = tmp_path / "no" / "run.db" if how == "folder" else tmp_path / "text"
    if how == "text":
        path.write_text("what is in here is no database, nor will it ever be one" * 99)
    with pytest.raises(JournalError, match=str(path)):
        list(ex.map(tasks.square, range(3), resume=path))
    assert isinstance(ex.options(journal=path).submit(abs, 1).exception(LIMIT), JournalError)


class Full(Journal):
    """A journal whose disk is full after so many transactions."""

    room = 2

    def put(self, function, results):
        if not self.room:
            raise JournalError(self.path, "the disk is full")
        self.room -= 1
        super().put(function, results)


def test_where_a_result_cannot_be_kept_the_map_ends_there(ex, tmp_path):
    journal = Full(tmp_path / "run.db")
    results = ex.map(tasks.square, range(10), chunksize=2, resume=journal)
    found = []
    with pytest.raises(JournalError, match="full"):
        found.extend(results)

    assert found == squares(range(len(found)))
    assert len(found) <= 4
    assert len(journal.entries()) == 4
    future = ex.options(journal=journal).submit(abs, -1)
    assert isinstance(future.exception(LIMIT), JournalError)
    assert list(ex.map(tasks.square, range(10), resume=journal.path)) == squares(range(10))
    journal.close()


PROGRAM = """
import sys
from remote_executor import FarmExecutor, JournalError

def work(i):
    return i, "x" * 500

if __name__ == "__main__":
    with FarmExecutor(2) as executor:
        try:
            for i, text in executor.map(work, range(int(sys.argv[2])), resume=sys.argv[1]):
                assert text == "x" * 500
                sys.stdout.write(f"{i}\\n")
                sys.stdout.flush()
        except JournalError as error:
            sys.stdout.write(f"JournalError {error}\\n")
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))

    def start(count, **settings):
        command = [sys.executable, "program.py", str(tmp_path / "run.db"), str(count)]
        return subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **settings,
        )

    return start


def check_kept(journal, yielded):
    """Check that what was yielded is kept, and that nothing that is kept is wrong."""
    kept = {}
    for each in journal.entries():
        (value,) = journal.load([(each.key, None)])
        kept[value[0]] = value[1]
    assert set(yielded) <= set(kept)
    assert set(kept.values()) <= {"x" * 500}
    return kept


def kill_in_a_loop(program, journal, times):
    total = 0
    for round in range(times):
        running = program(100_000)
        lines = []
        for line in running.stdout:
            lines.append(line)
            if len(lines) > total + 37 * (round % 5):
                break
        running.send_signal(signal.SIGKILL)
        lines += running.stdout.readlines()
        running.wait(LIMIT)
        running.stdout.close()
        running.stderr.close()
        yielded = [int(line) for line in lines if line.endswith("\n")]
        assert yielded == list(range(len(yielded)))
        total = max(total, len(yielded))
        check_kept(journal, yielded)


def test_killed_again_and_again_nothing_is_lost(program, journal):
    kill_in_a_loop(program, journal, 3)


@pytest.mark.slow
def test_killed_500_times_nothing_is_lost(program, journal):
    kill_in_a_loop(program, journal, 500)


def test_a_full_disk_ends_the_map_at_that_result(program, journal):
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    running = program(5000, preexec_fn=limited)
    out, err = running.communicate(timeout=LIMIT)
    *lines, last = out.splitlines()

    assert last.startswith("JournalError"), err
    yielded = list(map(int, lines))
    assert yielded == list(range(len(yielded)))
    check_kept(journal, yielded)
    done = program(600).communicate(timeout=LIMIT)
    assert done[0].split() == [str(i) for i in range(600)]


def test_two_programs_may_use_one_file(program, journal):
    both = [program(400) for _ in range(2)]

    for each in both:
        out, err = each.communicate(timeout=LIMIT)
        assert out.split() == [str(i) for i in range(400)], err
    assert len(check_kept(journal, range(400))) == 400


# -- the command


def test_the_command_lists_shows_and_removes(ex, journal, capsys):
    list(ex.map(tasks.square, range(3), resume=journal))
    list(ex.map(tasks.same, ["text"], resume=journal))
    key = journal.entries()[-1].key.hex()

    assert main(["journal", "ls", journal.path]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("4 results, ")
    assert [line.split()[-1] for line in lines[:-1]] == ["tests.support.tasks.square"] * 3 + [
        "tests.support.tasks.same"
    ]
    assert main(["journal", "show", journal.path, key[:12]]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "  'text'"
    assert main(["journal", "rm", journal.path]) == 1
    assert "rm needs keys" in capsys.readouterr().err
    assert main(["journal", "rm", journal.path, "--function", "square"]) == 0
    assert capsys.readouterr().out == "3 results removed\n"
    assert main(["journal", "rm", journal.path, key]) == 0
    assert main(["journal", "show", journal.path, key]) == 1
    assert main(["journal", "ls", journal.path + "x"]) == 1
    assert "there is no file" in capsys.readouterr().err
    assert journal.entries() == []
