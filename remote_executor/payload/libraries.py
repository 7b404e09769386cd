"""
Versions of libraries at both ends, for who has to say why a pickle made there does not load here.

The names of the folders that installers leave behind tell them all. To read what is in these
folders, as ``importlib.metadata`` does, takes a hundred times as long.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["OURS", "changed", "installed", "modules_named"]

OURS = ("remote-executor", "cloudpickle")
"""What has to understand each other at both ends."""

_SUFFIXES = (".dist-info", ".egg-info")


def installed(path: Sequence[str] | None = None) -> dict[str, str]:
    """
    Return the version of each installed distribution, by its name in lower case with hyphens.

    Args:
        path: Folders to look into, the first that has one wins; by default ``sys.path``.
    """
    found: dict[str, str] = {}
    for folder in sys.path if path is None else path:
        try:
            names = sorted(os.listdir(os.fsdecode(folder) or "."))
        except (OSError, TypeError, ValueError):  # a zip file, or nothing at all
            continue
        for name in names:
            if name.endswith(_SUFFIXES):
                library, _, version = name.rpartition(".")[0].partition("-")
                if version:
                    found.setdefault(_normal(library), version.partition("-")[0])
    return found


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def modules_named(body: bytes | bytearray | memoryview) -> set[str]:
    """
    Return the top-level modules that a pickle may name. Other words that look like one count, too.

    Args:
        body: The pickle. What is not one names nothing.
    """
    import pickletools

    found: set[str] = set()
    try:
        for operation, argument, _ in pickletools.genops(bytes(body)):
            if isinstance(argument, str) and "UNICODE" in operation.name:
                found.add(argument.partition(".")[0])
    except ValueError:
        pass  # it ends early, or was none from here on
    return {name for name in found if name.isidentifier()}


def changed(
    bodies: Iterable[bytes | bytearray | memoryview],
    ours: Mapping[str, str],
    theirs: Mapping[str, str],
) -> list[tuple[str, str, str]]:
    """
    Find the libraries that pickles name and that are of different versions at the two ends.

    Args:
        bodies: The pickles.
        ours: Versions here, as from :func:`installed`.
        theirs: Versions there.

    Returns:
        For each its name, our version and theirs.
    """
    differing = {name for name, version in ours.items() if theirs.get(name, version) != version}
    if not differing:
        return []
    from importlib.metadata import packages_distributions

    homes = packages_distributions()
    libraries = {
        _normal(library)
        for body in bodies
        for module in modules_named(body)
        for library in homes.get(module, [module])
    }
    return [(name, ours[name], theirs[name]) for name in sorted(libraries & differing)]
