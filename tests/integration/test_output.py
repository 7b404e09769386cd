"""What tasks print reaches the client's sys.stdout and sys.stderr."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
import warnings

import pytest

from remote_executor import FarmExecutor
from tests.integration.conftest import environment
from tests.support import tasks
from tests.support.scale import scaled
from tests.support.waiting import wait_until

LIMIT = scaled(20)


@contextlib.contextmanager
def streams():
    """Replace the client's streams after the executor was made, as notebooks do."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err


class Keeper(logging.Handler):
    """Keeps records."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def emit(self, record):
        self.found.append(record)


@contextlib.contextmanager
def records(name, level=logging.WARNING):
    """Collect what the client's logger of that name is given."""
    found = []
    logger, handler = logging.getLogger(name), Keeper(found)
    before = logger.level
    logger.setLevel(level)
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def words_of(line):
    """Return a line without the mark of host and task that stands before those of servers."""
    return re.sub(r"^\[[^]]*\] ", "", line)


def test_prints_reach_the_client(farm):
    """K85."""
    with streams() as (out, err):
        farm.submit(tasks.print_words, "hello out", "hello err").result(LIMIT)

        wait_until(lambda: "hello out\n" in out.getvalue())
        wait_until(lambda: "hello err\n" in err.getvalue())
        assert "err" not in out.getvalue()


def test_prints_of_code_below_python(farm):
    """What C code and child processes write is captured as well."""
    with streams() as (out, err):
        farm.submit(tasks.print_raw, b"raw out\n", b"raw err\n").result(LIMIT)
        farm.submit(subprocess.call, [sys.executable, "-c", "print('child out')"]).result(LIMIT)

        wait_until(lambda: "raw out\n" in out.getvalue() and "child out\n" in out.getvalue())
        wait_until(lambda: "raw err\n" in err.getvalue())


def test_lines_stay_whole(farm):
    """Two workers' lines do not mix, and none is lost."""
    with streams() as (out, _):
        lines = [f"line {i} " + "x" * 50 for i in range(200)]
        list(farm.map(print, lines, chunksize=10))

        wait_until(lambda: out.getvalue().count("\n") >= 200)
        assert sorted(map(words_of, out.getvalue().splitlines())) == sorted(lines)


def test_unfinished_line(farm):
    """A line without its end is shown, at the end of the task at the latest."""
    with streams() as (out, _):
        farm.submit(print, "no newline", end="", flush=True).result(LIMIT)

        wait_until(lambda: "no newline" in out.getvalue())


def test_output_while_the_task_runs(farm, tmp_path):
    """It is not kept until the end."""
    with streams() as (out, _):
        release = tmp_path / "release"

        def talk():
            print("still running", flush=True)
            tasks.wait_for(release)

        future = farm.submit(talk)
        wait_until(lambda: "still running\n" in out.getvalue())
        assert not future.done()
        release.touch()
        future.result(LIMIT)


def test_unicode_and_bytes_that_are_none(farm):
    with streams() as (out, _):
        farm.submit(print, "grüße 你好 🎉").result(LIMIT)
        farm.submit(tasks.print_raw, b"bad \xff\xfe bytes\n").result(LIMIT)

        wait_until(lambda: "grüße 你好 🎉\n" in out.getvalue())
        wait_until(lambda: "bad " in out.getvalue() and " bytes\n" in out.getvalue())


def test_warnings_and_logging_of_a_task(farm):
    """K85: warnings go to the worker's stderr, and so to the client's; no protocol breaks."""
    with streams() as (_, err), records("a.task") as found:

        def talk():
            warnings.warn("blah", UserWarning, stacklevel=1)
            logging.getLogger("a.task").warning("logged there")

        with warnings.catch_warnings():
            warnings.simplefilter("default")
            farm.submit(talk).result(LIMIT)

        wait_until(lambda: "UserWarning: blah" in err.getvalue())
        wait_until(lambda: found)
    assert found[0].getMessage().endswith("logged there")


def log_much(name, count, threads):
    """Log from several threads and from a signal handler, while the task goes on."""
    import signal
    import threading

    logger = logging.getLogger(name)

    def talk(which):
        for number in range(count):
            logger.warning("%d %d %s", which, number, "x" * 1000)

    signal.signal(signal.SIGALRM, lambda *_: logger.warning("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    talkers = [threading.Thread(target=talk, args=(which,)) for which in range(threads)]
    for talker in talkers:
        talker.start()
    talk(threads)
    for talker in talkers:
        talker.join()
    signal.setitimer(signal.ITIMER_REAL, 0)


def test_records_arrive_whole(farm):
    """K85: with their fields, named by host and task, before the task's result."""
    with records("some.where", logging.DEBUG) as found:

        def fail():
            logger = logging.getLogger("some.where")
            logger.debug("below the client's root level, so it stays there")
            try:
                raise ValueError("the cause")
            except ValueError:
                logger.exception("number %d", 7, stack_info=True)
            return os.getpid()

        pid = farm.options(name="the task").submit(fail).result(LIMIT)
        (record,) = found

    assert record.levelno == logging.ERROR
    assert words_of(record.getMessage()) == "number 7"
    assert (record.process, record.funcName, record.threadName) == (pid, "fail", "MainThread")
    assert (record.host, record.task) == (socket.gethostname(), "the task")
    text = logging.Formatter("%(levelname)s %(message)s").format(record)
    assert text.startswith("ERROR ")
    assert "ValueError: the cause" in text
    assert "Stack (most recent call last)" in text
    assert ("the task" in text) == text.startswith("ERROR [")


def test_records_from_threads_and_signal_handlers(farm):
    """They never tear what else travels."""
    with records("much") as found:
        futures = [farm.submit(log_much, "much", 200, 3) for _ in range(2)]
        others = [farm.submit(tasks.same, bytes(100_000)) for _ in range(20)]
        assert [future.result(LIMIT) for future in futures] == [None, None]
        assert {len(future.result(LIMIT)) for future in others} == {100_000}

    assert sum("alarm" not in record.getMessage() for record in found) == 2 * 4 * 200


def test_records_of_a_forked_child_and_of_a_worker_that_logs_by_itself(own):
    """A child of a task has no way to the client but stderr; who configures logging has it so."""

    def fork_and_log():
        logging.getLogger("child")
        pid = os.fork()
        if not pid:
            logging.getLogger("child").warning("from a child")
            os._exit(0)
        os.waitpid(pid, 0)

    def configure():
        logging.basicConfig(format="mine: %(message)s")
        logging.getLogger("child").warning("from a task")

    with streams() as (_, err), records("child") as found:
        own.submit(fork_and_log).result(LIMIT)
        wait_until(lambda: "from a child\n" in err.getvalue())
        own.broadcast(configure)
        wait_until(lambda: "mine: from a task\n" in err.getvalue())
    assert not found


LOGGING = """
import logging
import sys
from remote_executor import FarmExecutor

def talk():
    import logging
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        logging.getLogger("app").log(level, "level %d", level)

if __name__ == "__main__":
    if len(sys.argv) > 1:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s:%(name)s:%(message)s")
    with FarmExecutor(1) as executor:
        executor.submit(talk).result()
"""


def test_records_in_a_program_that_configures_logging_or_does_not(run_script):
    """As in a program without workers: its levels and formats, or the plain words of warnings."""
    assert run_script(LOGGING) == (0, "", "level 30\n")
    assert run_script(LOGGING, args=["x"]) == (0, "", "INFO:app:level 20\nWARNING:app:level 30\n")


def test_output_of_a_broken_client_stream(farm, monkeypatch):
    """A stream that raises costs no task its result."""

    class Broken(io.StringIO):
        def write(self, text):
            raise OSError("disk full")

    monkeypatch.setattr(sys, "stdout", Broken())
    assert farm.submit(tasks.print_words, "lost").result(LIMIT) is None
    assert farm.submit(pow, 2, 3).result(LIMIT) == 8
    monkeypatch.setattr(sys, "stdout", None)
    assert farm.submit(tasks.print_words, "lost").result(LIMIT) is None
    assert farm.submit(pow, 2, 3).result(LIMIT) == 8


def test_standard_input_is_empty(farm):
    """It is /dev/null: a task that reads it does not hang."""
    assert farm.submit(tasks.read_stdin).result(LIMIT) == ""


def test_a_task_that_replaces_its_streams(tmp_path):
    with FarmExecutor(1) as executor:
        assert executor.submit(tasks.replace_streams).result(LIMIT) == "replaced"
        assert executor.submit(tasks.print_words, "a", "b").result(LIMIT) is None
        assert executor.submit(pow, 2, 3).result(LIMIT) == 8


def test_a_hundred_megabytes(run_script):
    """They arrive, or are left out with a word about it; nothing hangs or swells."""
    code, out, err = run_script(
        """
import sys
from remote_executor import FarmExecutor
from tests.support import tasks

class Counter:
    count = 0
    def write(self, text):
        self.count += len(text)
    def flush(self):
        pass

if __name__ == "__main__":
    real, sys.stdout = sys.stdout, Counter()
    with FarmExecutor(2) as executor:
        other = executor.submit(pow, 2, 3)
        size = executor.submit(tasks.print_much, 100_000, 1000).result(50)
        assert other.result(50) == 8
        assert executor.submit(pow, 2, 5).result(50) == 32
    # Not ru_maxrss: that of the process that started this one counts in it.
    status = open("/proc/self/status").read()
    peak = int(status.split("VmHWM:")[1].split()[0]) // 1024
    print(size, sys.stdout.count, peak, file=real)
""",
        limit=55,
    )

    assert (code, err) == (0, "")
    size, arrived, peak = map(int, out.split())
    assert size == 100_000_000
    assert arrived >= 1_000_000
    assert peak < 400, "megabytes at the client"


def test_output_comes_before_the_end(run_script):
    """What a task printed is shown before the program ends, and nothing else."""
    code, out, err = run_script(
        """
from remote_executor import FarmExecutor

if __name__ == "__main__":
    with FarmExecutor(2) as executor:
        for i in range(5):
            executor.submit(print, "apple", i)
"""
    )

    assert (code, err) == (0, "")
    assert sorted(out.splitlines()) == [f"apple {i}" for i in range(5)]


def test_library_is_quiet(run_script):
    """K70: no handler, no words, unless asked for; then by named loggers."""
    source = """
import logging, sys
if len(sys.argv) > 1:
    logging.basicConfig(level=logging.DEBUG)
from remote_executor import FarmExecutor

if __name__ == "__main__":
    with FarmExecutor(1) as executor:
        print(executor.submit(pow, 2, 3).result(20))
"""

    assert run_script(source) == (0, "8\n", "")
    code, out, err = run_script(source, args=["loud"])
    assert (code, out) == (0, "8\n")
    assert "remote_executor" in err


def test_speed_is_not_lost_by_talk(farm):
    """Many small prints cost little."""
    with streams():
        start = time.monotonic()
        for future in [farm.submit(print, i) for i in range(500)]:
            future.result(LIMIT)

        assert time.monotonic() - start < scaled(5)


COVERED = """
def double(x):
    if x:
        y = 2 * x
    else:
        y = 0
    return y
"""


def test_coverage_of_what_runs_in_workers(run_script, tmp_path):
    """README's setting."""
    pytest.importorskip("coverage", minversion="7.10")
    (tmp_path / "covered.py").write_text(COVERED.lstrip())
    (tmp_path / ".coveragerc").write_text("[run]\npatch = subprocess\n")
    (tmp_path / "main.py").write_text(
        "import covered\n"
        "from remote_executor import FarmExecutor\n"
        "if __name__ == '__main__':\n"
        "    with FarmExecutor(1) as executor:\n"
        "        print(executor.submit(covered.double, 3).result())\n"
    )
    for words in (["run", "main.py"], ["combine", "-q"], ["json", "-q", "--include=covered.py"]):
        done = subprocess.run(
            [sys.executable, "-m", "coverage", *words],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "coverage.json").read_text())["files"]["covered.py"]

    assert found["missing_lines"] == [5]


def test_the_streams_of_a_task_are_of_the_usual_type(farm):
    assert farm.submit(types_of_streams).result(LIMIT) == ["TextIOWrapper"] * 3
    assert farm.submit(getattr, sys, "stdout").result(LIMIT) is sys.stdout


def types_of_streams():
    return [type(each).__name__ for each in (sys.stdin, sys.stdout, sys.stderr)]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_the_last_words_of_a_task_without_a_newline_are_not_lost(capfd, stream):
    for _ in range(5):
        with FarmExecutor(1) as executor:
            executor.submit(say_without_newline, stream, "the last words").result(LIMIT)
        said = capfd.readouterr()
        assert "the last words" in (said.out if stream == "stdout" else said.err)


def say_without_newline(stream, words):
    print(words, end="", file=getattr(sys, stream))
