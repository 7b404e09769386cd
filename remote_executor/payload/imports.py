"""
The client's modules, at the worker: an import hook that asks the client for what is not here.

:class:`RemoteFinder` stands last in ``sys.meta_path``, so what this machine has comes first. A
module that the client gives is executed under the name of the client's file: tracebacks show its
lines, ``inspect`` its source, and ``importlib.resources`` reads the files of its package.

Answers bring more than was asked for (see :mod:`remote_executor.payload.modules`). What came ahead
is used for some seconds only, since the client may edit its files; then it is asked for again,
which costs a round trip, but no source comes twice to a server.
"""

from __future__ import annotations

import io
import os
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from typing import TYPE_CHECKING, Any, NamedTuple

from remote_executor.payload.secret_files import why_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import CodeType, ModuleType

    Question = dict[str, Any]
    Answer = tuple[dict[str, Any], Sequence[bytes | bytearray | memoryview]]

__all__ = ["RemoteFinder", "RemoteFolder", "RemoteLoader", "RemotePath"]

FRESH_SECONDS = 5.0
"""How long what came ahead may be used."""

ABSENT_SECONDS = 1.0
"""How long a module that the client does not have is not asked for again."""


class _Given(NamedTuple):
    """A module as it came from the client."""

    file: str | None
    folders: list[str] | None
    content: bytes | None
    came: float


class RemoteFinder:
    """
    Finds modules at the client.

    Args:
        ask: Takes a question, returns the client's answer: its fields, and the contents that they
            name in order of ``"contents"``; or None if there is nobody to ask.
        clock: Monotonic time in seconds.
    """

    def __init__(
        self, ask: Callable[[Question], Answer | None], clock: Callable[[], float]
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._given: dict[str, _Given] = {}
        self._absent: dict[str, float] = {}
        self._packages: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<RemoteFinder {len(self._given)} modules ahead>"

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """
        Find a module that no other finder has. The import system calls this.

        Args:
            name: Its dotted name.
            path: Where its package is, which does not matter here.
            target: The module to be loaded again; then it is asked for anew.
        """
        top, dot, _ = name.partition(".")
        if top in sys.stdlib_module_names or top == "remote_executor":
            return None
        if dot and not _takes_parts_of_the_client(sys.modules.get(name.rpartition(".")[0])):
            return None
        return self.find_own(name, target)

    def find_own(self, name: str, target: ModuleType | None = None) -> ModuleSpec | None:
        """
        Find a module at the client, whatever this machine has of that name.

        Args:
            name: Its dotted name.
            target: The module to be loaded again; then it is asked for anew.
        """
        if target is not None:
            self.forget()
        given = self._get(name)
        if given is None:
            return None
        loader: Any = RemoteLoader(self, name, given.file, given.folders, given.content)
        spec = ModuleSpec(name, loader, origin=given.file, is_package=given.folders is not None)
        spec.has_location = given.file is not None
        if given.folders is not None:
            spec.submodule_search_locations = list(given.folders)
            self._packages.update(dict.fromkeys(given.folders, name))
        return spec

    def path_hook(self, folder: str) -> RemoteFolder:
        """
        Return what lists the modules in a folder of the client's, for ``pkgutil.iter_modules``.

        Put this first into ``sys.path_hooks``.

        Args:
            folder: An entry of a package's ``__path__``.

        Raises:
            ImportError: If it is none of the client's.
        """
        if folder not in self._packages:
            raise ImportError(f"{folder} is not the folder of a package of the client's")
        return RemoteFolder(self, self._packages[folder])

    def ask_copy(self, name: str, *, whole: bool) -> Any:
        """
        Ask what tells the client's copy of a top-level module from others.

        Args:
            name: The module's name.
            whole: Whether all of its files count, and not where they are.
        """
        answer = self._ask({"copy": name, "whole": whole})
        return answer[0].get("copy") if answer is not None else None

    def invalidate_caches(self) -> None:
        """Ask for everything anew. ``importlib.invalidate_caches`` calls this."""
        self.forget()

    def forget(self) -> None:
        """Ask for everything anew."""
        self._given.clear()
        self._absent.clear()

    def _get(self, name: str) -> _Given | None:
        now = self._clock()
        given = self._given.pop(name, None)
        if given is not None and now - given.came < FRESH_SECONDS:
            return given
        absent = self._absent.get(name)
        if absent is not None and now - absent < ABSENT_SECONDS:
            return None
        answer = self._ask({"modules": [name]})
        now = self._clock()
        if answer is not None:
            fields, contents = answer
            by_digest = dict(zip(fields["contents"], map(bytes, contents), strict=True))
            for each, file, folders, digest in fields["modules"]:
                content = None if digest is None else checked(by_digest[digest], digest)
                self._given[each] = _Given(file, folders, content, now)
                self._absent.pop(each, None)
        given = self._given.pop(name, None)
        if given is None:
            self._absent[name] = now
        return given

    # ---------------------------------------------------------------- package data

    def names(self, package: str) -> list[str]:
        """
        Return the files of a package, as paths with slashes.

        Args:
            package: Its dotted name.
        """
        answer = self._ask({"list": package})
        return (answer[0]["files"] if answer is not None else None) or []

    def read(self, package: str, path: str) -> bytes:
        """
        Return what is in a file of a package.

        Args:
            package: Its dotted name.
            path: The file in the package's folder, with slashes.

        Raises:
            FileNotFoundError: If the client has no such file.
            PermissionError: If it does not give it: with the reason.
        """
        answer = self._ask({"file": [package, path]})
        digest = answer[0]["file"] if answer is not None else None
        if answer is not None and answer[0].get("withheld"):
            raise PermissionError(13, str(answer[0]["withheld"]), path)
        if answer is None or digest is None:
            raise FileNotFoundError(2, "the client has no such file in this package", path)
        return checked(bytes(answer[1][0]), digest)


def _takes_parts_of_the_client(package: ModuleType | None) -> bool:
    """
    Whether modules of a package may be asked for at the client.

    A package comes from one place. One that this machine has is not completed by modules of the
    client, which may be of another version; but one without ``__init__.py`` may have many places.
    """
    spec = getattr(package, "__spec__", None)
    if spec is None or isinstance(spec.loader, RemoteLoader):
        return True
    return getattr(package, "__file__", None) is None


class RemoteFolder:
    """
    Lists the modules of a package at the client.

    Args:
        finder: Asks the client.
        package: The package's dotted name.
    """

    def __init__(self, finder: RemoteFinder, package: str) -> None:
        self._finder = finder
        self._package = package

    def find_spec(self, name: str, target: ModuleType | None = None) -> None:
        """Find nothing: :class:`RemoteFinder` does that."""

    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        """
        Return the names of modules, and whether they are packages. ``pkgutil`` calls this.

        Args:
            prefix: Put before each name.
        """
        found: dict[str, bool] = {}
        for path in sorted(self._finder.names(self._package)):
            first, _, rest = path.partition("/")
            if rest == "__init__.py":
                found[first] = True
            elif not rest and first.endswith(".py") and first != "__init__.py":
                found.setdefault(first[:-3], False)
        return ((prefix + name, is_package) for name, is_package in found.items())


class RemoteLoader:
    """
    Executes a module that the client gave.

    Attributes:
        content: Its source; None for a package without ``__init__.py``.
        path: The client's file.
    """

    def __init__(
        self,
        finder: RemoteFinder,
        name: str,
        file: str | None,
        folders: Sequence[str] | None,
        content: bytes | None,
    ) -> None:
        self.name = name
        self.path = file
        self.content = content
        self._finder = finder
        self._folders = folders

    def __repr__(self) -> str:
        return f"<RemoteLoader of {self.name}>"

    def create_module(self, spec: ModuleSpec) -> None:
        """Have the import system make the module as usual."""

    # It calls get_code(). Being importlib's own, it does not show in tracebacks.
    exec_module = SourceFileLoader.exec_module

    def get_filename(self, name: str) -> str:
        """Return the client's file."""
        return self.path or ""

    def is_package(self, name: str) -> bool:
        """Tell a package from a module."""
        return self._folders is not None

    def get_source(self, name: str) -> str:
        """Return the source, for tracebacks and ``inspect``."""
        from importlib.util import decode_source

        return decode_source(self.content or b"")

    def get_code(self, name: str) -> CodeType:
        """Compile the source under the name of the client's file."""
        file = self.path or "<package>"
        self._show_lines(file)
        code: CodeType = compile(self.content or b"", file, "exec", dont_inherit=True)
        return code

    def _show_lines(self, file: str) -> None:
        """Have tracebacks show these lines, not earlier ones nor those of a file that is here."""
        known = sys.modules.get("linecache")
        if known is not None:
            known.cache.pop(file, None)  # then it asks this loader
        if os.path.exists(file):
            import linecache

            lines = self.get_source(self.name).splitlines(keepends=True)
            linecache.cache[file] = len(self.content or b""), None, lines, file

    def get_data(self, path: str) -> bytes:
        """
        Return a file beside the module, for ``pkgutil.get_data``.

        Raises:
            FileNotFoundError: If the client has no such file.
            PermissionError: If it does not give it: with the reason.
        """
        package = self.name if self._folders is not None else self.name.rpartition(".")[0]
        folder = os.path.dirname(self.path or "")
        inside = os.path.relpath(path, folder).replace(os.sep, "/")
        return self._finder.read(package, inside)

    def get_resource_reader(self, name: str) -> RemoteFiles | None:
        """Return what ``importlib.resources`` reads from; None for what is not a package."""
        return RemoteFiles(self._finder, name) if self._folders is not None else None


class RemoteFiles:
    """The files of a package, for ``importlib.resources``."""

    def __init__(self, finder: RemoteFinder, package: str) -> None:
        self._root = RemotePath(finder, package, (), None)

    def files(self) -> RemotePath:
        """Return the package's folder."""
        return self._root

    def open_resource(self, resource: str) -> io.BytesIO:
        """Open a file of the folder."""
        return io.BytesIO((self._root / resource).read_bytes())

    def resource_path(self, resource: str) -> str:
        """
        Return where a file is: nowhere on this machine.

        Raises:
            FileNotFoundError: Always; the callers make a temporary file instead.
        """
        raise FileNotFoundError(resource)

    def is_resource(self, name: str) -> bool:
        """Tell a file from a folder."""
        return (self._root / name).is_file()

    def contents(self) -> Iterator[str]:
        """Return the names in the folder."""
        return (each.name for each in self._root.iterdir())


class RemotePath:
    """
    A file or folder of a package at the client: a ``Traversable`` of ``importlib.resources``.

    Args:
        finder: Asks the client.
        package: The package's dotted name.
        parts: The path in the package's folder.
        files: All files of the package as paths, or None if they were not asked for yet.
    """

    def __init__(
        self,
        finder: RemoteFinder,
        package: str,
        parts: tuple[str, ...],
        files: list[str] | None,
    ) -> None:
        self._finder = finder
        self._package = package
        self._parts = parts
        self._files = files

    def __repr__(self) -> str:
        return f"<RemotePath {str(self)!r}>"

    def __str__(self) -> str:
        return "/".join([self._package, *self._parts])

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self._parts[-1] if self._parts else self._package.rpartition(".")[2]

    def _listing(self) -> list[str]:
        if self._files is None:
            self._files = self._finder.names(self._package)
        return self._files

    def iterdir(self) -> Iterator[RemotePath]:
        """Return what is in the folder."""
        depth = len(self._parts)
        files = self._listing()
        inside = [path.split("/") for path in files]
        names = [
            each[depth]
            for each in inside
            if len(each) > depth and tuple(each[:depth]) == self._parts
        ]
        for name in dict.fromkeys(names):
            yield RemotePath(self._finder, self._package, (*self._parts, name), files)

    def is_file(self) -> bool:
        """
        Whether it is a file.

        Raises:
            PermissionError: If it is one that the client does not give. Were this False, a task
                would go on without it, and nobody would know.
        """
        path = "/".join(self._parts)
        if path in self._listing():
            return True
        if path and (path[0] == "." or "/." in path or why_secret(path) is not None):
            try:
                self._finder.read(self._package, path)
            except FileNotFoundError:
                return False
            return True
        return False

    def is_dir(self) -> bool:
        """Whether it is a folder, which has something in it."""
        start = "".join(part + "/" for part in self._parts)
        return any(path.startswith(start) for path in self._listing())

    def exists(self) -> bool:
        """Whether there is such a file or folder."""
        return self.is_file() or self.is_dir()

    def joinpath(self, *descendants: str) -> RemotePath:
        """Return what is below this."""
        parts = [part for each in descendants for part in str(each).split("/") if part != "."]
        return RemotePath(self._finder, self._package, (*self._parts, *parts), self._files)

    __truediv__ = joinpath

    def read_bytes(self) -> bytes:
        """
        Return what is in the file.

        Raises:
            FileNotFoundError: If there is none.
        """
        return self._finder.read(self._package, "/".join(self._parts))

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """Return the text in the file, with the line ends that ``open`` gives."""
        with self.open("r", encoding=encoding, errors=errors) as stream:
            text: str = stream.read()
        return text

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        """
        Open the file for reading.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is to be written.
        """
        if mode not in ("r", "rt", "rb"):
            raise ValueError(
                f"a file of the client's can only be read, not opened in mode {mode!r}"
            )
        stream = io.BytesIO(self.read_bytes())
        return stream if mode == "rb" else io.TextIOWrapper(stream, *args, **kwargs)


def checked(content: bytes, digest: str) -> bytes:
    """
    Return a content that is what its digest says.

    Raises:
        ImportError: If it is not.
    """
    from hashlib import sha256

    if sha256(content).hexdigest() != digest:
        raise ImportError("what came from the client is not what it sent: the digest differs")
    return content
