"""What a result or a failure becomes for who waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from remote_executor.client.foreign import of_other_libraries, traceback_text
from remote_executor.errors import CannotShip
from remote_executor.payload.failures import decode_failure, worker_pid
from remote_executor.task_errors import RemoteError

if TYPE_CHECKING:
    from remote_executor.errors import FarmError
    from remote_executor.wire.frames import Buffer, Frame

__all__ = ["KnowsLibraries", "open_failure", "pid_of", "unloadable"]


class KnowsLibraries(Protocol):
    """What is needed of the driver."""

    def libraries(self) -> list[tuple[str, dict[str, str]]]:
        """Return the names of servers and the versions of their libraries."""


def unloadable(
    error: BaseException,
    body: Buffer,
    driver: KnowsLibraries,
    what: str = "the task's result",
) -> FarmError:
    """
    Return the error of who waits for a value that cannot be rebuilt here.

    Args:
        error: What unpickling it raised.
        body: Its pickle.
        driver: Knows of the servers.
        what: What it is, in the words of the error.

    Returns:
        Mostly a RemoteError, with both versions if libraries differ; a CannotShip if it is source
        that this Python does not know.
    """
    if isinstance(error, CannotShip):
        return error.with_traceback(None)
    words = f"{what} cannot be unpickled here"
    found: FarmError | None = None
    try:
        found = of_other_libraries(error, [body], driver.libraries(), words)
    except Exception:
        pass  # it is too broken for the names in it to be read, so no library is to blame
    if found is None:
        found = RemoteError(type(error).__qualname__, f"{words}: {error}", traceback_text(error))
    # The text of it stays. The frames hold all that came, and the future that is to have this.
    found.__cause__ = error.with_traceback(None)
    return found


def open_failure(frame: Frame) -> BaseException:
    """
    Rebuild the exception that a task raised.

    Args:
        frame: The FAILURE.
    """
    pickled = frame.buffers[0] if frame.buffers else b""
    return decode_failure(bytes(frame.body), bytes(pickled))


def pid_of(frame: Frame) -> int | None:
    """
    Return the process id of the worker that a FAILURE comes from, as far as it says.

    Args:
        frame: The FAILURE.
    """
    return worker_pid(frame.body)
