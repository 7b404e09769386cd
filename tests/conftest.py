"""Fixtures and settings for all tests."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.support import without_linux  # before anything of ours is loaded

# isort: split
from remote_executor import garbage
from remote_executor.cores import usable_cores
from remote_executor.net.tokens import renew_token
from tests.support import leaks
from tests.support.scale import SCALE, scaled
from tests.support.tools import INSISTED, require, require_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
LEAK_CHECKED = (HERE / "integration", HERE / "contract")

KEPT_OUT = (
    "REMOTE_EXECUTOR_ADDRESSES",
    "REMOTE_EXECUTOR_AUTH",
    "REMOTE_EXECUTOR_GSSAPI",
    "REMOTE_EXECUTOR_TLS",
)

_private = pytest.StashKey[str]()

hypothesis.settings.register_profile(
    "farm",
    # A shared machine stalls now and then: how long an example takes proves nothing.
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("farm")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the user's token and farm out of the tests: they have a token of their own."""
    folder = tempfile.mkdtemp(prefix="remote-executor-tests-")  # mode 0700
    config.stash[_private] = folder
    os.environ["REMOTE_EXECUTOR_TOKEN_FILE"] = os.path.join(folder, "token")
    renew_token()  # a file that is named is not made by the way
    for name in [name for name in os.environ if name.startswith(KEPT_OUT)]:
        del os.environ[name]
    leaks.set_mark()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's background job: it would pass that on to the programs that tests interrupt.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes run the tests, which wait half of the time. Many gain nothing."""
    return min(8, max(2, usable_cores() * 3 // 2))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the tests' token."""
    shutil.rmtree(config.stash.get(_private, ""), ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long, unless it is asked for; scale each test's time limit."""
    if "slow" not in INSISTED:
        reason = "takes long: runs with REMOTE_EXECUTOR_TEST_EXTRAS=slow"
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason))
    if without_linux.ASKED or sys.platform != "linux":
        for item in items:
            marker = item.get_closest_marker("linux")
            if marker is not None:
                item.add_marker(pytest.mark.skip(f"needs Linux: {marker.args[0]}"))
    if SCALE == 1:
        return
    usual = float(config.getini("timeout") or 0)
    for item in items:
        marker = item.get_closest_marker("timeout")
        limit = usual
        if marker is not None:
            limit = float(marker.args[0] if marker.args else marker.kwargs.get("timeout", usual))
        item.add_marker(pytest.mark.timeout(scaled(limit), method="thread"), append=False)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Spare the garbage collector what stays to the end: thousands of tests, and libraries."""
    gc.collect()
    garbage.freeze()


@pytest.fixture(name="scaled", scope="session")
def scaled_fixture() -> Callable[[float], float]:
    """Return the function that turns a limit in seconds into one for this machine."""
    return scaled


@pytest.fixture(name="require", scope="session")
def require_fixture() -> Callable[..., str]:
    """Return the function that finds a program, or skips the test and names the program."""
    return require


@pytest.fixture(name="require_module", scope="session")
def require_module_fixture() -> Callable[..., object]:
    """Return the function that imports a module, or skips the test and names the module."""
    return require_module


@pytest.fixture(scope="session")
def token_file() -> Path:
    """Return the path of this run's token file."""
    return Path(os.environ["REMOTE_EXECUTOR_TOKEN_FILE"])


@pytest.fixture(scope="session")
def _leak_baseline() -> None:
    leaks.warm_up()


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test of integration/ or contract/ that leaves something behind."""
    checked = any(folder in request.path.parents for folder in LEAK_CHECKED)
    if not checked or request.node.get_closest_marker("no_leak_check"):
        yield
        return
    request.getfixturevalue("_leak_baseline")
    before = leaks.snapshot()
    yield
    lines = leaks.leaked(before)
    if lines:
        pytest.fail(leaks.describe(lines), pytrace=False)
