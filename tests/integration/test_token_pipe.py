"""The token pipe between a real worker and a supervisor's side that takes back what it can."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")

STRESS = """
import operator, os, random, sys, time
from remote_executor.core.pool import PoolSession, PoolWorker
from remote_executor.payload.pickles import dump, load
from remote_executor.server.worker import Worker
from remote_executor.server.workers import WorkerProcess
from remote_executor.wire.frames import make_frame
from remote_executor.wire.messages import Kind

random.seed(int(sys.argv[1]))
process = WorkerProcess(PoolWorker(PoolSession("s", 1, None), 0, 0.0), 1)
wire, tokens, answers, *_ = process.theirs()
pid = os.fork()
if not pid:
    try:
        process.tokens.close()
        process.sock.close()
        Worker(wire, tokens, answers).serve()
    finally:
        os._exit(0)
process.close_theirs()

def task(id):
    return make_frame(Kind.TASK, id, dump(((id,), {}))[0], aux=1)

def give(ids):
    assert process.give([task(id) for id in ids])

def collect(count):
    found, until = [], time.monotonic() + 20
    while len(found) < count:
        assert time.monotonic() < until, f"{found} came, and no more"
        for frame in process.receive():
            assert (frame.kind, load(frame.body)) == (Kind.RESULT, -frame.id)
            process.tokens.answered(frame.id)
            found.append(frame.id)
    return found

process.put(make_frame(Kind.BLOB, 0, dump(operator.neg)[0], aux=1))
last = restored = rounds = 0
until = time.monotonic() + 1.5
while time.monotonic() < until:
    rounds += 1
    left = []
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        some = [last + 1 + index for index in range(random.choice([1, 1, 2, 3]))]
        last = some[-1]
        give(some)
        left += some
    for _ in range(random.randrange(60)):
        pass
    for _ in range(random.randrange(1, 6)):
        assert 0 <= process.tokens.unread() <= len(left)
        reclaimed = process.tokens.reclaim()
        assert reclaimed == left[len(left) - len(reclaimed) :]
        kept = [id for id in reclaimed if random.random() < 0.8]
        process.tokens.restore(kept)
        left = [*left[: len(left) - len(reclaimed)], *kept]
        restored += len(kept)
    assert collect(len(left)) == left
assert process.receive() == []
assert rounds > 10
assert restored > 10
process.tokens.close()
os.waitpid(pid, 0)
print("each once")
"""


@pytest.mark.parametrize("seed", range(2))
def test_each_task_that_is_not_taken_back_runs_once_and_in_order(run_script, seed):
    """With their tokens or by the wire, and some whose second half the supervisor has read."""
    code, out, err = run_script(STRESS, args=[seed], limit=30)
    assert (code, out.strip()) == (0, "each once"), err
