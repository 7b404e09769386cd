"""Run one measurement on one peer in an interpreter of its own, and rounds of them in turn."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from remote_executor.net.tokens import make_token
from tests.bench import memory
from tests.bench.groups import MEASURES
from tests.bench.peers import PEERS

__all__ = ["child", "measure_in_turn"]

ROOT = Path(__file__).parents[2]


def child(measure: str, peer: str, size: int) -> None:
    """Measure, in this interpreter, and print the numbers as the last line."""
    numbers = MEASURES[measure].function(PEERS[peer], size)
    print("\n" + json.dumps(numbers), flush=True)


def measure_in_turn(name: str, quick: bool, timeout: float, log: Any) -> dict[str, Any]:
    """
    Run the rounds of one measurement, its peers in turn: A B C, A B C, ...

    Args:
        name: A key of MEASURES.
        quick: Take the small size and one round.
        timeout: Seconds for one run of one peer.
        log: A function that takes a line of progress.

    Returns:
        A dict with the size, and for each peer its list of numbers and its errors.
    """
    measure = MEASURES[name]
    size = measure.quick if quick else measure.size
    if measure.touches:
        memory.touch(measure.touches // 5 if quick else measure.touches)
    peers: dict[str, dict[str, Any]] = {
        peer: {"rounds": [], "errors": []} for peer in measure.peers
    }
    for number in range(1 if quick else measure.rounds):
        for peer, found in peers.items():
            if found["errors"]:
                continue
            try:
                numbers = _run(name, peer, size, timeout)
            except RuntimeError as error:
                found["errors"].append(str(error))
                log(f"{name} {peer} round {number + 1}: {error}")
            else:
                found["rounds"].append(numbers)
                words = ", ".join(f"{key} {value:,.4g}" for key, value in numbers.items())
                log(f"{name} {peer} round {number + 1}: {words}")
    return {"size": size, "peers": peers}


def _run(measure: str, peer: str, size: int, timeout: float) -> dict[str, float]:
    # Not `-m tests.bench`: a spawned worker would import that main module again.
    code = f"from tests.bench.run import child; child({measure!r}, {peer!r}, {size})"
    with tempfile.TemporaryDirectory(prefix="remote-executor-bench-") as folder:
        token = os.path.join(folder, "token")
        with open(token, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(make_token())
        environment = {
            **os.environ,
            "REMOTE_EXECUTOR_TOKEN_FILE": token,
            memory.MARK: uuid.uuid4().hex,
        }
        environment.pop("REMOTE_EXECUTOR_ADDRESSES", None)
        with subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                raise RuntimeError(f"no answer after {timeout:g} s") from None
    if process.returncode:
        last = (err.strip().splitlines() or ["no words"])[-1]
        raise RuntimeError(f"exit code {process.returncode}: {last}")
    numbers: dict[str, float] = json.loads(out.strip().splitlines()[-1])
    return numbers
