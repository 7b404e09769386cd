"""Modules import from lower floors and from their own folder, never sideways or up."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import chain

import pytest

from tests.support.house import PACKAGE, ROOT, Import, imports, modules
from tests.support.scale import scaled

FLOORS = [
    [
        "errors",
        "options",
        "retry",
        "task_errors",
        "printable",
        "cores",
        "interpreter",
        "lineage",
        "garbage",
    ],  # words, and what the machine is
    ["wire", "payload"],  # bytes, pure
    ["core"],  # decisions, pure
    ["net"],  # the world
    ["modules", "journal"],  # the user's modules, results that last
    ["client", "server"],  # shells
    ["parallel", "launch", "adapters"],  # uses
    ["cli_arguments", "cli", "__main__", "__init__"],
]
FLOOR_OF = {unit: floor for floor, units in enumerate(FLOORS) for unit in units}

IMPURE = {
    "_random",
    "_socket",
    "_thread",
    "asyncio",
    "multiprocessing",
    "random",
    "secrets",
    "select",
    "selectors",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
}
REQUIRED = {"cloudpickle": "remote_executor.payload", "tblib": "remote_executor.payload"}
# The face of all ways to get a farm hands on to what is above it, late.
UPWARDS = {
    ("remote_executor.client.executor", "remote_executor.launch.command"),
    ("remote_executor.client.executor", "remote_executor.launch.hosts"),
    ("remote_executor.client.executor", "remote_executor.launch.ssh"),
    ("remote_executor.client.executor", "remote_executor.adapters.joblib_backend"),
}
CLIENT_ONLY = "remote_executor.task_errors"
HEAVY = {
    "ast",
    "asyncio",
    "cloudpickle",
    "concurrent.futures",
    "dataclasses",
    "hashlib",
    "inspect",
    "logging",
    "ssl",
    "subprocess",
    "tblib",
}
LATE = {"remote_executor.server.logs": {"logging"}}
"""What is loaded only once a task has loaded these."""


def unit_of(name: str) -> str:
    """Return the folder, or the module of the top level, that a module of ours belongs to."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def is_ours(name: str) -> bool:
    return name.partition(".")[0] == "remote_executor"


def where(name: str, found: Import) -> str:
    return f"{modules()[name].relative_to(ROOT)}:{found.line} imports {found.name}"


def test_every_folder_and_file_has_its_floor():
    assert {unit_of(name) for name in modules()} <= set(FLOOR_OF)


@pytest.mark.parametrize("name", modules())
def test_imports_go_down(name):
    unit = unit_of(name)
    folders = (PACKAGE / unit).is_dir()

    wrong = [
        where(name, found)
        for found in imports(name)
        if is_ours(found.name)
        and FLOOR_OF[unit_of(found.name)] >= FLOOR_OF[unit]
        and not ((name, found.name) in UPWARDS and (found.late or found.typing_only))
        # Inside one folder, or among the files that make one floor of the top level.
        and not (unit_of(found.name) == unit and folders)
        and not (
            FLOOR_OF[unit_of(found.name)] == FLOOR_OF[unit]
            and not folders
            and not (PACKAGE / unit_of(found.name)).is_dir()
        )
    ]

    assert wrong == []


@pytest.mark.parametrize("name", [name for name in modules() if FLOOR_OF[unit_of(name)] in (1, 2)])
def test_floors_one_and_two_are_pure(name):
    wrong = [
        where(name, found)
        for found in imports(name)
        if found.name.partition(".")[0] in IMPURE and not found.typing_only
    ]

    assert wrong == []


def test_an_optional_library_is_imported_by_its_wrapper_alone():
    known = set(sys.stdlib_module_names) | {"remote_executor"} | set(REQUIRED)
    users: dict[str, set[str]] = {}
    for name in modules():
        for found in imports(name):
            library = found.name.partition(".")[0]
            if library not in known:
                users.setdefault(library, set()).add(name)

    assert {library: names for library, names in users.items() if len(names) > 1} == {}


@pytest.mark.parametrize("name", modules())
def test_required_libraries_stay_in_their_folder(name):
    wrong = [
        where(name, found)
        for found in imports(name)
        for library, home in REQUIRED.items()
        if found.name.partition(".")[0] == library and not name.startswith(home)
    ]

    assert wrong == []


@pytest.mark.parametrize("name", modules())
def test_errors_of_tasks_are_for_the_client_only(name):
    if FLOOR_OF[unit_of(name)] >= FLOOR_OF["client"] and unit_of(name) != "server":
        return
    wrong = [
        where(name, found)
        for found in imports(name)
        # A worker never calls the function of payload/ that makes them.
        if found.name == CLIENT_ONLY
        and not found.typing_only
        and not (unit_of(name) == "payload" and found.late)
    ]

    assert wrong == []


@pytest.mark.parametrize(
    "name", [name for name in modules() if unit_of(name) in ("server", "wire")]
)
def test_servers_and_workers_load_nothing_heavy(name):
    """A worker starts fast and is small, since what it imports is small."""
    code = (
        "import json, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"import {name}\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )

    # Without site: what else is installed may import anything at the interpreter's start.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        capture_output=True,
        text=True,
        timeout=scaled(30),
    )

    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert loaded & (HEAVY | {CLIENT_ONLY}) == LATE.get(name, set())
    assert [
        other
        for other in loaded
        if is_ours(other) and unit_of(other) in chain(FLOORS[FLOOR_OF["parallel"]], ["client"])
    ] == []
