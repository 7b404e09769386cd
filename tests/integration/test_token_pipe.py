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
    process.put_tasks([task(id) for id in ids], ids)
    assert process.flush()
    process.tokens.write(ids)

def collect(count):
    found, until = [], time.monotonic() + 20
    while len(found) < count:
        assert time.monotonic() < until, f"{found} came, and no more"
        for frame in process.receive():
            assert (frame.kind, load(frame.body)) == (Kind.RESULT, -frame.id)
            process.answered(frame.id)
            found.append(frame.id)
    return found

process.put(make_frame(Kind.BLOB, 0, dump(operator.neg)[0], aux=1))
process.known.add(1)
last = 1
give([last])
assert collect(1) == [last]
restored = alone = 0
until = time.monotonic() + 1.5
while time.monotonic() < until:
    left = [last := last + 1]
    assert process.give_alone(task(last))
    alone += 1
    if random.random() < 0.3:
        behind = [last + 1, last + 2]
        last += 2
        give(behind)
        left += behind
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
    if not process.settled:
        give([last := last + 1])
        assert collect(1) == [last]
        assert process.settled
assert process.receive() == []
assert alone > 10
assert restored > 10
process.tokens.close()
os.waitpid(pid, 0)
print("each once")
"""


@pytest.mark.parametrize("seed", range(2))
def test_each_task_that_is_not_taken_back_runs_once_and_in_order(run_script, seed):
    """Lone ones, those behind them, and those whose second half the supervisor has read."""
    code, out, err = run_script(STRESS, args=[seed], limit=30)
    assert (code, out.strip()) == (0, "each once"), err
