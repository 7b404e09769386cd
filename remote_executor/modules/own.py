"""
The first finder of a worker whose client has modules of its own: these come from the client.

It is made when the client names some, see :mod:`remote_executor.modules.claims`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from remote_executor.payload.own_imports import theirs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["OwnFinder"]

LOADERS = "remote_executor.payload.imports"
"""Where the loaders of what the client gave are."""

KEPT = frozenset({"__main__", "__mp_main__", "cloudpickle", "remote_executor", "tblib"})
"""What this process itself runs on."""


class OwnFinder:
    """
    Finds the client's own modules, whatever this machine has of the same names.

    Args:
        late: The worker's last finder, which asks the client.
        warn: Takes a text for whoever looks at the logs.
    """

    def __init__(self, late: Any, warn: Callable[[str], None]) -> None:
        self._late = late
        self._warn = warn
        self._names: set[str] = set()
        self._here: set[str] = set()
        """Those of which this machine has the same: they are taken from here."""

    def __repr__(self) -> str:
        return f"<OwnFinder {len(self._names)} names>"

    def claim(self, loaded: Iterable[str], found: Iterable[str]) -> None:
        """
        Take names that the client claims, and let go of what was loaded here under them.

        Args:
            loaded: Of modules that the client has loaded.
            found: Of modules that the client would find.
        """
        new = set(loaded) - self._names - KEPT
        self._names |= new
        self._names |= set(found) - KEPT
        for name in new & set(sys.modules):
            spec = getattr(sys.modules[name], "__spec__", None)
            if type(getattr(spec, "loader", None)).__module__ == LOADERS:
                continue
            if spec is not None and self._is_the_same(name, spec):
                self._here.add(name)
                continue
            for each in list(sys.modules):
                if each.partition(".")[0] == name:
                    del sys.modules[each]
        # What Python has under such a name we may yet import ourselves.
        theirs.update((new & sys.stdlib_module_names) - self._here)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: Any = None
    ) -> Any | None:
        """Find a module of the client's. The import system calls this."""
        top = name.partition(".")[0]
        if top not in self._names or top in self._here:
            return None
        other = self._find_here(name, path) if top == name else None
        if other is not None and self._is_the_same(name, other):
            self._here.add(name)
            return other
        spec = self._late.find_own(name, target)
        if spec is not None and other is not None and name not in sys.stdlib_module_names:
            self._warn(
                f"this server has another {name!r} ({other.origin}) than the client"
                f" ({spec.origin}): the client's is used"
            )
        return spec

    def _find_here(self, name: str, path: Sequence[str] | None) -> Any | None:
        """Return what this machine has of a name, if that is a module with a place of its own."""
        for finder in list(sys.meta_path):
            if finder is self or finder is self._late:
                continue
            find: Any = getattr(finder, "find_spec", None)
            spec = find(name, path) if find is not None else None
            if spec is not None:
                return spec if spec.origin is not None and spec.has_location else None
        return None

    def _is_the_same(self, name: str, spec: Any) -> bool:
        """Whether a module of this machine is what the client has, file for file."""
        place = spec.origin
        folders = list(spec.submodule_search_locations or [])
        if not isinstance(place, str) or not place.endswith(".py") or len(folders) > 1:
            return False
        from remote_executor.payload.copy_digests import copy_digest, file_signature

        if self._late.ask_copy(name, whole=False) == file_signature(place):
            return True  # on the same machine
        mine = copy_digest(place, folders[0] if folders else None)
        return mine is not None and mine == self._late.ask_copy(name, whole=True)

    def invalidate_caches(self) -> None:
        """Compare anew. ``importlib.invalidate_caches`` calls this."""
        self._here.clear()


def warn(text: str) -> None:
    """Write a warning to this worker's log, which the client shows."""
    import logging

    logging.getLogger("remote_executor.worker").warning("%s", text)
