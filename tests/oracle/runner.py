"""Runs programs in all ways, and judges what they show."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_executor.client.admin import ping
from tests.oracle.catalog import Program
from tests.support.faults import free_port
from tests.support.pythons import ROOT, find_pythons
from tests.support.pythons import environment as environment_of_another
from tests.support.scale import scaled
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["MODES", "Oracle", "Verdict"]

HERE = Path(__file__).parent
LIMIT = 30.0
MODES = ("embedded", "elsewhere", "to_other", "from_other")
"""The ways in which a farm runs programs."""

NO_ACCESS = """
import os, sys

FORBIDDEN = os.path.realpath(os.environ["FORBIDDEN_FOLDER"])

def look(event, args):
    if event in ("open", "os.listdir", "os.scandir") and args and isinstance(args[0], (str, bytes)):
        path = os.path.realpath(os.fsdecode(args[0]))
        if path == FORBIDDEN or path.startswith(FORBIDDEN + os.sep):
            raise PermissionError(13, "the server has no access to the programs", path)

sys.addaudithook(look)
"""


@dataclass
class Outcome:
    """
    What came of a program run in one way.

    Attributes:
        shown: The texts of the values that it showed.
        error: The error that ended it, as a name and a text, or None.
        refusal: Whether that says that something cannot travel.
        log: What it wrote.
        refused: Its globals that pickle refuses.
    """

    shown: list[str]
    error: tuple[str, str] | None
    refusal: bool
    log: str
    refused: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = ", ".join(self.shown)
        return f"{words} then {self.error[0]}: {self.error[1]}" if self.error else words


@dataclass
class Verdict:
    """
    How a program fared in one way.

    Attributes:
        word: "right", "refused", "wrong", or "skipped".
        reason: What was wrong, or why it was skipped.
        log: What it wrote.
    """

    word: str
    reason: str = ""
    log: str = field(default="", repr=False)


class Template:
    """
    A process that runs programs in forks of itself.

    Args:
        python: The interpreter.
        env: Its environment.
    """

    def __init__(self, python: str, env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [python, str(HERE / "template.py"), str(HERE / "helper")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            cwd=HERE,
        )
        self._waiting: dict[int, Future[int]] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def run(self, **request: Any) -> Future[int]:
        """Run a program; the future has its exit status."""
        future: Future[int] = Future()
        assert self._process.stdin is not None
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = future
            line = json.dumps({"id": number, "limit": scaled(LIMIT), **request})
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        return future

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            self._waiting.pop(answer["id"]).set_result(answer["status"])
        for future in self._waiting.values():
            future.set_exception(EOFError("the process that runs programs has ended"))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(scaled(60))
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


class _Server:
    """A server elsewhere: in an empty folder, without access to the programs."""

    def __init__(self, folder: Path, python: str, env: dict[str, str]) -> None:
        folder.mkdir()
        self.log = folder.parent / f"{folder.name}.log"
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        command = [python, "-m", "remote_executor", "serve", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--workers", "16", "--preload", "no_access"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd=folder,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it answers."""
        wait_until(self._answers, 20, "a server that answers")

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"the server ended: {self.log.read_text()}")
        return ping(self.address, timeout=scaled(1))

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(scaled(10))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Oracle:
    """
    Runs programs in all ways.

    Args:
        folder: An empty one for all files.
        programs: All that it may be asked for.
        modes: Some of :data:`MODES`.
        other: The other Python; by default the newest here of another minor version.
    """

    def __init__(
        self,
        folder: Path,
        programs: Iterable[Program],
        modes: Iterable[str] = MODES,
        other: str | None = None,
    ) -> None:
        self.modes = tuple(modes)
        self._programs = folder / "programs"
        self._programs.mkdir()
        resident, extra = folder / "resident", folder / "extra"
        for program in programs:
            _write(resident, program.resident)
        _write(extra, {"no_access.py": NO_ACCESS})
        self._libraries: dict[tuple[str, str], bool] = {}
        mine = "{}.{}".format(*sys.version_info)
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "FORBIDDEN_FOLDER": str(self._programs),
        }
        on_server = os.pathsep.join([str(resident), str(extra)])
        self._templates = {"": Template(sys.executable, env)}
        self._servers: dict[str, _Server] = {}
        self._pythons = {"": sys.executable}
        self._versions = {"": sys.version_info[:2]}
        if {"to_other", "from_other"} & set(self.modes):
            others = {key: path for key, path in find_pythons().items() if key != mine}
            other = other or (list(others.values()) or [None])[-1]
        else:
            other = None
        if other is not None:
            borrowed = folder / "borrowed"
            borrowed.mkdir()
            theirs = {**env, **environment_of_another(borrowed)}
            self._templates["other"] = Template(other, theirs)
            self._pythons["other"] = other
            question = [other, "-c", "import sys; print(*sys.version_info[:2])"]
            answer = subprocess.run(question, capture_output=True, text=True, check=True).stdout
            self._versions["other"] = tuple(map(int, answer.split()))
        for mode, python, environ in (
            ("elsewhere", sys.executable, env),
            ("to_other", other, theirs if other is not None else {}),
        ):
            if python is not None and {mode, "from_other"} & set(self.modes):
                path = os.pathsep.join([environ["PYTHONPATH"], on_server])
                self._servers[mode] = _Server(
                    folder / f"server_{mode}", python, {**environ, "PYTHONPATH": path}
                )
        for server in self._servers.values():
            server.wait()

    def close(self) -> None:
        """End all processes."""
        for each in (*self._templates.values(), *self._servers.values()):
            each.close()

    # -------------------------------------------------------------------------

    def judge(self, program: Program, modes: Sequence[str] | None = None) -> dict[str, Verdict]:
        """
        Run a program in all ways, and return how it fared in each.

        Args:
            program: The program.
            modes: Some of this oracle's modes; all by default.
        """
        modes = self.modes if modes is None else modes
        folder = self._programs / program.kind / program.name
        found: dict[str, Verdict] = {}
        begun: dict[str, Future[int]] = {}
        for mode in modes:
            at = "other" if mode == "from_other" else ""
            reason = self._unable(program, mode)
            if reason:
                found[mode] = Verdict("skipped", reason)
                continue
            template = self._templates[at]
            # What promises more than fork is measured by home alone.
            for measure in ("home", "fork")[: 1 if program.measure == "home" else 2]:
                name = f"{measure}{at}"
                if name not in begun:
                    begun[name] = self._begin(template, program, folder / name, measure, "")
            if mode == "embedded":
                address = ""
            else:
                address = self._servers["elsewhere" if at else mode].address
            way = "embedded" if mode == "embedded" else "farm"
            begun[mode] = self._begin(template, program, folder / mode, way, address)
        outcomes = {
            name: _outcome(folder / name, future.result(scaled(LIMIT * 3)))
            for name, future in begun.items()
        }
        for mode in modes:
            if mode in outcomes:
                at = "other" if mode == "from_other" else ""
                measures = outcomes[f"home{at}"], outcomes.get(f"fork{at}", _NOT_RUN)
                found[mode] = judge(program, *measures, outcomes[mode])
        return found

    @staticmethod
    def _begin(
        template: Template, program: Program, folder: Path, way: str, address: str
    ) -> Future[int]:
        """Run a program in an empty folder, since it may write there."""
        shutil.rmtree(folder, ignore_errors=True)
        _write(folder, {"program.py": program.text, **program.files})
        return template.run(program=str(folder / "program.py"), mode=way, address=address)

    def _unable(self, program: Program, mode: str) -> str:
        """Say why a program cannot be run in a mode; empty if it can."""
        needed = [""] if mode in ("embedded", "elsewhere") else ["", "other"]
        for at in needed:
            if at not in self._pythons:
                return "another CPython than this is missing"
            if self._versions[at] < program.python:
                return "needs Python {}.{}".format(*program.python)
            for library in program.needs:
                if not self._has(at, library):
                    where = " (Python {}.{})".format(*self._versions[at]) if at else ""
                    return f"{library} is missing{where}"
        return ""

    def _has(self, at: str, library: str) -> bool:
        key = at, library
        if key not in self._libraries:
            question = f"import importlib.util as u; print(u.find_spec({library!r}) is not None)"
            done = subprocess.run(
                [self._pythons[at], "-c", question], capture_output=True, text=True, check=True
            )
            self._libraries[key] = done.stdout.strip() == "True"
        return self._libraries[key]


_NOT_RUN = Outcome([], None, False, "")


def judge(program: Program, home: Outcome, fork: Outcome, farm: Outcome) -> Verdict:
    """
    Say whether a farm ran a program as it should have.

    Args:
        program: The program.
        home: What came of it with calls in place of tasks.
        fork: What came of it on a forked pool.
        farm: What came of it on a farm.
    """
    measure = home if program.measure == "home" or fork.refusal else fork
    if measure.error is not None:
        return Verdict("wrong", f"the program itself fails: {measure}", measure.log)
    if farm.error is None:
        if farm.shown == measure.shown or ", ".join(farm.shown) in program.also:
            return Verdict("right")
        return Verdict("wrong", f"{farm}\n    in place of {measure}", farm.log)
    name, text = farm.error
    if program.missing and name == "RemoteModuleNotFound" and f"{program.missing!r}" in text:
        return Verdict("refused", f"{name}: {text}", farm.log)
    if not farm.refusal:
        return Verdict("wrong", f"{farm}\n    in place of {measure}", farm.log)
    if farm.shown != measure.shown[: len(farm.shown)]:
        return Verdict("wrong", f"{farm}\n    refused too late: {measure}", farm.log)
    if not program.named_in(text):
        return Verdict("wrong", f"{farm}\n    does not name what is refused", farm.log)
    # What fork refuses as well, or pickle wherever it is, is refused rightly.
    if fork.refusal or any(f"'{each}'" in text for each in home.refused):
        return Verdict("right")
    return Verdict("refused", f"{name}: {text}", farm.log)


def _outcome(folder: Path, status: int) -> Outcome:
    log = (folder / "outcome.log").read_text(encoding="utf-8", errors="replace")
    try:
        found = json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        code = os.waitstatus_to_exitcode(status)
        return Outcome([], ("ended", f"by {-code}" if code < 0 else str(code)), False, log)
    error = found["error"]
    return Outcome(
        found["shown"],
        (error["type"], error["text"]) if error is not None else None,
        error is not None and error["refusal"],
        log,
        tuple(found["refused"]),
    )


def _write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
