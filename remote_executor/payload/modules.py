"""
The user's own modules, at the client: what a worker may have of them, and what it gets.

::

    worker                                         client
    ------                                         ------
    import app        WANT {"modules": ["app"]}    Modules.answer: where is it, is it the user's
      imports.py      --------------------------->   own, what does it import in its turn
      executes it     <---------------------------   MODULES {"modules": [...]} + sources
    files("app")      WANT {"list": "app"}           names of the package's files
      .read_text()    WANT {"file": ["app", "x"]}    one of them

Served are sources (never bytecode, so that the Python there may be another) and files in the
folders of packages, also in zip files. Only what is the user's own: neither Python's nor installed,
and really, with all symbolic links followed, in the folder or zip file that its top-level package
was found in. Nothing is imported to find it, so none of the user's code runs. Files that look like
secrets (see :mod:`remote_executor.payload.secret_files`) stay here, unless the user has named their
package; who asks for one is told so, and the log has a line.

To ask costs a round trip, so the answer also holds what the sources import, theirs in turn, and
what this process has loaded of the same packages.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from importlib.machinery import SourceFileLoader
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple
from zipimport import zipimporter

from remote_executor.errors import RemoteProtocolError
from remote_executor.payload.copy_digests import copy_digest, file_signature
from remote_executor.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "Modules",
    "imported_names",
    "is_installed",
    "is_module_name",
    "served_words",
    "users_own_file",
    "why_not_served",
]

MOST_AHEAD = 200
"""Modules in one answer, unless more were asked for."""

MOST_AHEAD_BYTES = 4 * 1024 * 1024
MOST_LOADED = 100
"""Modules in one answer that are there only because they are loaded here."""

MOST_LOADED_BYTES = 1024 * 1024
MOST_NAMES = 1000
MOST_FILES = 20_000
LONGEST_NAME = 1000
MOST_LOGGED = 20
LONGEST_LOGGED = 1000
"""Modules, and characters of their names, in one line of the log."""

MOST_WITHHELD = 1000
"""Files of which it is remembered that the log has a line about them."""

MOST_CACHED_BYTES = 64 * 1024 * 1024

_NOT_IN_NAMES = {"/", "\\", "\0", ":", os.sep}
_NEVER = frozenset({"__main__", "__mp_main__", "remote_executor"})


class _Place(NamedTuple):
    """
    Where a module is: its file, or None; its folders, if it is a package; its own source.

    With an archive, file and folders are in that zip file, as Python writes such paths.
    """

    file: str | None
    folders: tuple[str, ...] | None
    roots: tuple[str, ...]
    content: bytes | None
    archive: zipimporter | None = None


class _File(NamedTuple):
    signature: tuple[int, ...]
    content: bytes
    digest: str
    names: dict[str, list[str]]
    """What it imports, by the package that relative imports start from."""


class Modules:
    """
    Answers a server's questions for modules of this process.

    Args:
        which: "auto" for all that are the user's own, "never" for none, or the names of those that
            may be served, with all that is in them.

    Raises:
        ValueError: If it is none of these.
    """

    def __init__(self, which: str | Iterable[str] = "auto") -> None:
        self._names: frozenset[str] | None = None
        if isinstance(which, str):
            if which not in ("auto", "never"):
                raise ValueError(
                    f'modules must be "auto", "never" or a list of names, not {which!r}'
                )
            if which == "never":
                self._names = frozenset()
        else:
            names = list(which)
            for name in names:
                if not is_module_name(name):
                    raise ValueError(f"modules: {name!r} is not the name of a module")
            self._names = frozenset(names)
        self._files: dict[str, _File] = {}
        self._cached_bytes = 0
        self._withheld: set[tuple[str, str]] = set()

    def __bool__(self) -> bool:
        """Whether anything may be served."""
        return self._names is None or bool(self._names)

    def __repr__(self) -> str:
        which = "auto" if self._names is None else sorted(self._names)
        return f"<Modules {which} {len(self._files)} files>"

    # ------------------------------------------------------------------- answering

    def answer(self, question: dict[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
        """
        Answer what a worker asks for.

        Args:
            question: ``{"modules": [name, ...]}``, ``{"list": package}`` or
                ``{"file": [package, path]}``.

        Returns:
            The fields of the answer, and the contents that belong to it, by digest.

        Raises:
            RemoteProtocolError: If that is no question.
        """
        contents: dict[str, bytes] = {}
        fields: dict[str, Any]
        if "modules" in question:
            fields = {"modules": self._modules(_names_in(question["modules"]), contents)}
        elif "list" in question:
            fields = {"files": self._list(question["list"])}
        elif "copy" in question:
            fields = {"copy": self._copy(question["copy"], question.get("whole") is True)}
        elif "file" in question:
            fields = self._file(question["file"], contents)
        else:
            raise RemoteProtocolError("a server asks for it knows not what")
        return fields, contents

    def _modules(self, names: Sequence[str], contents: dict[str, bytes]) -> list[list[Any]]:
        """Find what was asked for, what that imports, and what is loaded of the same packages."""
        found: dict[str, list[Any]] = {}
        places: dict[str, _Place | None] = {}
        seen: set[str] = set()
        queue = deque(names)
        size = 0
        while queue and (
            len(seen) < len(names) or (len(found) < MOST_AHEAD and size < MOST_AHEAD_BYTES)
        ):
            name = queue.popleft()
            if name not in seen:
                seen.add(name)
                place, file = self._add(name, places, found, contents)
                if place is not None and file is not None:
                    size += len(file.content)
                    queue.extend(filter(self._may_come_ahead, _imports(name, place, file)))
        # What is loaded has loaded what it imports: there is no need to look for that.
        tops = {name.partition(".")[0] for name in names}
        most = len(found) + MOST_LOADED
        size = 0
        for name in list(sys.modules):
            if len(found) >= most or size >= MOST_LOADED_BYTES:
                break
            if name not in seen and name.partition(".")[0] in tops and self._may_come_ahead(name):
                _, file = self._add(name, places, found, contents)
                size += len(file.content) if file is not None else 0
        return list(found.values())

    def _add(
        self,
        name: str,
        places: dict[str, _Place | None],
        found: dict[str, list[Any]],
        contents: dict[str, bytes],
    ) -> tuple[_Place | None, _File | None]:
        """Add a module to an answer, if it may be served and can be read."""
        place = self._place(name, places)
        file = self._read(place) if place is not None and place.file is not None else None
        if place is not None and (file is not None or place.file is None):
            if file is not None:
                contents[file.digest] = file.content
            digest = file.digest if file is not None else None
            found[name] = [name, place.file, place.folders, digest]
        return place, file

    # --------------------------------------------------------------------- finding

    def _is_named(self, name: str) -> bool:
        names = self._names
        return names is None or any(name == each or name.startswith(each + ".") for each in names)

    def _is_said(self, name: str) -> bool:
        """Whether the user himself has named a package, so that all that is in it may be served."""
        return self._names is not None and self._is_named(name)

    def _may_come_ahead(self, name: str) -> bool:
        """Whether a module may be sent before a task wants it: ``app.credentials`` may not."""
        from remote_executor.payload.secret_files import why_secret

        return self._is_said(name) or why_secret(name.replace(".", "/")) is None

    def _may(self, name: str) -> bool:
        """Whether a module may be served: also the packages that one that was named is in."""
        if name.partition(".")[0] in _NEVER:
            return False
        return self._is_named(name) or any(
            each.startswith(name + ".") for each in self._names or ()
        )

    def _place(self, name: str, places: dict[str, _Place | None]) -> _Place | None:
        """Find a module of the user's own, without importing anything."""
        if name not in places:
            may = is_module_name(name) and self._may(name)
            places[name] = self._find(name, places) if may else None
        return places[name]

    def _find(self, name: str, places: dict[str, _Place | None]) -> _Place | None:
        parent = name.rpartition(".")[0]
        above = None
        if parent:
            above = self._place(parent, places)
            if above is None or above.folders is None:
                return None
        spec = _spec(name, above.folders if above is not None else None)
        if spec is None:
            # Nothing but the name before the dot of a plug-in that was loaded by hand.
            return _Place(None, (), (), None) if _is_above_a_loaded_one(name) else None
        file, folders = _locations(spec)
        # What the program itself has loaded may be a link, or bear any name.
        loaded: bool = _is_loaded_source(name, spec)
        if loaded and folders is not None:
            folders = _folders_of(name, folders)
        if file is None and not folders:
            return None
        if type(spec.loader).__module__ == "remote_executor.payload.imports":
            # This process is a worker itself, and was served it.
            return _Place(file, folders, (), spec.loader.content)
        archive = _archive_of(spec.loader if file is not None else None, folders)
        if above is not None and (above.roots or archive is not None):
            roots = above.roots
        elif archive is not None:
            roots = (_real(archive.archive),)
        else:
            # What the folder of a package without __init__.py is, its own __path__ must say.
            tops = [file if folders is None else os.path.dirname(file)] if file else folders or ()
            roots = tuple(_real(os.path.dirname(each)) for each in tops)
        if loaded and file is not None:
            roots += (_real(file if folders is None else os.path.dirname(file)),)
            # ``pkgutil.extend_path`` adds folders from elsewhere on ``sys.path``.
            roots += tuple(
                _real(each) for each in folders or () if os.path.dirname(each) in _paths()
            )
        if folders is not None:
            folders = tuple(each for each in folders if _is_own(each, roots))
        if file is None:
            return _Place(None, folders, roots, None, archive) if folders else None
        if not (loaded or file.endswith(".py")) or not _is_own(file, roots):
            return None
        if archive is not None:
            content = _read_zipped(archive, file)
            return _Place(file, folders, roots, content, archive) if content is not None else None
        # A file that is none, such as a pipe, could be waited for without end.
        return _Place(file, folders, roots, None) if os.path.isfile(file) else None

    def _read(self, place: _Place) -> _File | None:
        """Read a source, or take what was read before if the file is the same."""
        file = place.file
        assert file is not None
        if place.content is not None:
            return _File((), place.content, _digest(place.content), {})
        try:
            with open(file, "rb") as stream:
                status = os.fstat(stream.fileno())
                signature = status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev
                known = self._files.get(file)
                if known is not None and known.signature == signature:
                    return known
                content = stream.read()
        except OSError:
            return None
        if self._cached_bytes > MOST_CACHED_BYTES:
            self._files.clear()
            self._cached_bytes = 0
        self._cached_bytes += len(content)
        found = self._files[file] = _File(signature, content, _digest(content), {})
        return found

    def may_serve(self, name: str) -> bool:
        """Whether a module of that name may be served, if it is the user's own."""
        return is_module_name(name) and self._may(name)

    def _copy(self, name: object, whole: bool) -> Any:
        """Return what tells our copy of a top-level module from that of a server."""
        if not isinstance(name, str) or "." in name or not self._is_named(name):
            return None
        place = self._place(name, {})
        if place is None or place.file is None or place.content is not None:
            return None
        folders = place.folders or ()
        if len(folders) > 1:
            return None
        if whole:
            return copy_digest(place.file, folders[0] if folders else None)
        return file_signature(place.file)

    # ---------------------------------------------------------------- package data

    def _package(self, name: object) -> _Place | None:
        """Find a package whose files may be served."""
        if not isinstance(name, str) or not self._is_named(name):
            return None
        place = self._place(name, {})
        if place is None or place.folders is None:
            return None
        if place.file is None and name not in sys.modules:
            return None  # a folder without __init__.py may be no package at all
        return place if place.roots else None

    def _list(self, name: object) -> list[str] | None:
        place = self._package(name)
        if place is None:
            return None
        if place.archive is not None:
            files = _files_in_archive(place, place.archive)
        else:
            files = _files_in_folders(place)
        said = self._is_said(str(name))
        shown = (path for path in files if _why_withheld(path, said) is None)
        return list(dict.fromkeys(islice(shown, MOST_FILES)))

    def _file(self, question: object, contents: dict[str, bytes]) -> dict[str, Any]:
        """Return the digest of a file's content, or why there is none if there is a reason."""
        if not isinstance(question, list) or len(question) != 2:
            raise RemoteProtocolError("a server asks for a file and does not say which")
        name, path = question
        if not isinstance(path, str) or not _is_inside(path):
            return {"file": None}
        place = self._package(name)
        found = _read_data(place, path) if place is not None else None
        if found is None:
            return {"file": None}
        file, content = found
        reason = _why_withheld(path, self._is_said(name), file, content)
        if reason is not None:
            return {"file": None, "withheld": self._withhold(name, path, reason)}
        digest = _digest(content)
        contents[digest] = content
        return {"file": digest}

    def _withhold(self, package: str, path: str, reason: str) -> str:
        """Say that a file is not served, once in the log; return the words for whoever asks."""
        words = (
            f"the file {path!r} of package {package} is not served to workers: {reason}; "
            f'modules=["{package}"] says that all files of it may be, but for hidden ones'
        )
        if (package, path) not in self._withheld and len(self._withheld) < MOST_WITHHELD:
            import logging

            self._withheld.add((package, path))
            logging.getLogger("remote_executor.client").warning("%s", words)
        return words


def served_words(fields: dict[str, Any]) -> str:
    """
    Say what an answer holds, for a log.

    Args:
        fields: Those of the answer.
    """
    found = fields.get("modules")
    names = [str(each[0]) for each in found if isinstance(each, list) and each] if found else []
    if not names:
        return "a file of a package"
    words = printable(", ".join(names[:MOST_LOGGED]), LONGEST_LOGGED)
    more = f" and {len(names) - MOST_LOGGED} more" if len(names) > MOST_LOGGED else ""
    return f"the module{'s' if len(names) > 1 else ''} {words}{more}"


def _archive_of(loader: object, folders: tuple[str, ...] | None) -> zipimporter | None:
    """Return what reads the zip file that a module or a package without a file of its own is in."""
    if loader is None and folders:
        loader = sys.path_importer_cache.get(folders[0])
    return loader if isinstance(loader, zipimporter) else None


def _read_zipped(archive: zipimporter, path: str) -> bytes | None:
    """
    Read a file in an archive, as that is now.

    The importer itself goes by where things were when it was made: in an archive that was replaced
    there may be something else, or a half of it.
    """
    from zipfile import ZipFile

    try:
        with ZipFile(archive.archive) as opened:
            return opened.read(os.path.relpath(path, archive.archive).replace(os.sep, "/"))
    except Exception:  # it is not in there, or the archive is gone, damaged or encrypted
        return None


def _why_withheld(path: str, said: bool, file: str = "", content: bytes = b"") -> str | None:
    """
    Tell why a file of a package stays here.

    Args:
        path: Its path in the package, with slashes.
        said: Whether the user has named the package.
        file: Where a symbolic link leads to, if it is one.
        content: What is in it, if that is known.
    """
    from remote_executor.payload.secret_files import is_environment_file, why_secret

    *folders, name = path.split("/")
    if any(each.startswith(".") for each in folders):
        return "it is in a hidden folder"
    if name.startswith(".") and not is_environment_file(name):
        return "it is a hidden file"
    if said:
        return None
    return why_secret(path, content) or why_secret(os.path.basename(file))


def _real_folders(place: _Place) -> tuple[str, ...]:
    return tuple(map(_real, place.folders or ()))


def _files_in_folders(place: _Place) -> Iterator[str]:
    """Yield a package's files as paths with slashes."""
    top = _real_folders(place)
    for folder in top:
        for where, folders, files in os.walk(folder):
            folders[:] = [each for each in sorted(folders) if _is_part(each) and each[0] != "."]
            inside = os.path.relpath(where, folder).split(os.sep)
            for file in sorted(files):
                if _is_part(file) and _is_own(os.path.join(where, file), top):
                    yield "/".join([*(part for part in inside if part != "."), file])


def _files_in_archive(place: _Place, archive: zipimporter) -> Iterator[str]:
    """Yield a package's files in a zip file, as paths with slashes."""
    from zipfile import BadZipFile, ZipFile

    try:
        with ZipFile(archive.archive) as opened:
            names = sorted(opened.namelist())
    except (OSError, BadZipFile):
        return
    for folder in place.folders or ():
        start = os.path.relpath(folder, archive.archive).replace(os.sep, "/") + "/"
        for name in names:
            if name.startswith(start) and _is_inside(name[len(start) :]):
                yield name[len(start) :]


def _read_data(place: _Place, path: str) -> tuple[str, bytes] | None:
    """Read a file of a package, by its path with slashes; return where it really is, too."""
    top = _real_folders(place)
    for folder in place.folders or ():
        file = os.path.join(folder, *path.split("/"))
        content: bytes | None = None
        if place.archive is not None:
            content = _read_zipped(place.archive, file)
        elif os.path.isfile(file) and _is_own(file, top):
            try:
                with open(file, "rb") as stream:
                    content = stream.read()
            except OSError:  # perhaps in the next
                pass
        if content is not None:
            return _real(file), content
    return None


def why_not_served(name: object) -> tuple[str, str, str] | None:
    """
    Tell why a server lacks a module that this process has.

    Args:
        name: What a task could not import.

    Returns:
        The package that it belongs to, that package's version (or empty), and a reason that goes
        on with "which ..."; None if this process does not have it either.
    """
    if not is_module_name(name):
        return None
    top = str(name).partition(".")[0]
    spec = _spec_of(str(name))
    if spec is None:
        return (top, "", "has no source that could be sent") if name in sys.modules else None
    if top in sys.stdlib_module_names:
        version = ".".join(map(str, sys.version_info[:3]))
        return "Python", version, "its Python lacks"
    file, folders = _locations(spec)
    where = file or (folders or ("",))[0]
    if is_installed(_real(where)):
        package, version = _distribution(top)
        return package, version, "must be installed there, too: it is installed at the client"
    if file is not None and not file.endswith(".py"):
        return top, "", "is a compiled one, which is not sent: build and install it there, too"
    if file is not None and not _is_own(file, [_real(os.path.dirname(os.path.dirname(file)))]):
        reason = f"is not sent, since a symbolic link leads to it ({_real(file)}): import it at the"
        return top, "", f"{reason} client before"
    reason = "is not sent: modules= of FarmExecutor leaves it out, or the server has a copy of its"
    return top, "", f"{reason} own of {top}, which lacks this"


def _spec_of(name: str) -> Any:
    parent = name.rpartition(".")[0]
    folders = None
    if parent:
        above = _spec_of(parent)
        folders = _locations(above)[1] if above is not None else None
        if folders is None:
            return None
    return _spec(name, folders)


def _distribution(top: str) -> tuple[str, str]:
    """Return what a top-level module was installed with, and its version."""
    if top not in _distributions:
        from importlib import metadata

        found = top, str(getattr(sys.modules.get(top), "__version__", ""))
        for each in metadata.distributions():
            files = {file.parts[0] for file in each.files or ()}
            if top in files or f"{top}.py" in files:
                found = each.metadata["Name"], each.version
                break
        _distributions[top] = found
    return _distributions[top]


def _imports(name: str, place: _Place, file: _File) -> list[str]:
    package = name if place.folders is not None else name.rpartition(".")[0]
    names = file.names.get(package)
    if names is None:
        names = file.names[package] = imported_names(file.content, package)
    return names


def is_module_name(name: object) -> bool:
    """
    Tell a dotted name from anything else that a peer may send.

    A part need not be an identifier: ``importlib.import_module("01-prep")`` is fine.
    """
    return (
        isinstance(name, str)
        and len(name) <= LONGEST_NAME
        and not any(each in name for each in _NOT_IN_NAMES)
        and all(part and part == part.strip() for part in name.split("."))
    )


def imported_names(source: bytes, package: str) -> list[str]:
    """
    Return the modules that a source may import, in the order of its import statements.

    Args:
        source: The text of a module.
        package: The package that relative imports start from; empty at the top.

    Returns:
        Dotted names. Of ``from a import b`` both ``a`` and ``a.b``, since either may be meant.
        Empty if this Python cannot parse it.
    """
    import ast

    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    outer: list[str] = []
    inner: list[str] = []
    todo: deque[tuple[ast.AST, list[str]]] = deque([(tree, outer)])
    while todo:
        node, names = todo.popleft()
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".") if package else []
                if node.level > len(parts):
                    continue
                above = parts[: len(parts) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            names.append(base)
            names += [f"{base}.{alias.name}" for alias in node.names if alias.name != "*"]
        elif not isinstance(node, ast.expr):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                names = inner  # that is for later, if at all
            todo.extend((child, names) for child in ast.iter_child_nodes(node))
    found: dict[str, None] = {}
    for name in outer + inner:
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            found[".".join(parts[:end])] = None
    return list(found)


def users_own_file(module: object) -> str | None:
    """Return the file of a loaded module of the user's; None for Python's and installed ones."""
    spec = getattr(module, "__spec__", None)
    file = _locations(spec)[0] if spec is not None else None
    return None if file is None or is_installed(_real(file)) else file


def is_installed(path: str) -> bool:
    """Tell whether a real path belongs to Python itself or to what was installed into it."""
    parts = path.split(os.sep)
    if "site-packages" in parts or "dist-packages" in parts:
        return True
    return any(_is_under(path, folder) for folder in _installed_folders())


def _installed_folders() -> list[str]:
    if not _folders:
        import sysconfig

        names = ("stdlib", "platstdlib", "purelib", "platlib")
        places = sysconfig.get_paths()
        _folders.extend({_real(places[name]) for name in names})
    return _folders


_folders: list[str] = []
_distributions: dict[str, tuple[str, str]] = {}


def _names_in(given: object) -> list[str]:
    if not isinstance(given, list) or not 0 < len(given) <= MOST_NAMES:
        raise RemoteProtocolError("a server asks for modules and does not say which")
    return [name for name in given if is_module_name(name)]


def _spec(name: str, path: tuple[str, ...] | None) -> Any:
    """Return what the import system knows of a module, or finds without importing anything."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    if spec is not None and getattr(spec, "name", None) == name:
        return spec
    if module is not None:
        return None  # made by hand
    for finder in list(sys.meta_path):
        find: Any = getattr(finder, "find_spec", None)
        try:
            spec = find(name, path) if find is not None else None
        except Exception:  # the next may know better
            continue
        if spec is not None:
            return spec
    return None


def _real(path: str) -> str:
    """Return a path without symbolic links; as it is, where the current folder is gone."""
    try:
        return os.path.realpath(path)
    except OSError:
        return path


def _absolute(path: str) -> str:
    """Return a path from the root; as it is, where the current folder is gone."""
    try:
        return os.path.abspath(path)
    except OSError:
        return path


def _is_loaded_source(name: str, spec: Any) -> bool:
    """Whether this process has executed a module from a file of Python's text."""
    known: Any = getattr(sys.modules.get(name), "__spec__", None)
    if known is not spec or not isinstance(known.loader, SourceFileLoader):
        return False
    return isinstance(known.origin, str) and not is_installed(_real(known.origin))


def _paths() -> set[str]:
    return {_absolute(each) for each in sys.path}


def _folders_of(name: str, folders: tuple[str, ...]) -> tuple[str, ...]:
    """Return where the parts of a loaded package are: it may have changed its ``__path__``."""
    try:
        return tuple(map(_absolute, sys.modules[name].__path__))
    except Exception:  # it has none, or one of somebody's own making
        return folders


def _is_above_a_loaded_one(name: str) -> bool:
    """Whether a name is of no module, and that of a loaded one of the user's begins with it."""
    if name in sys.modules:
        return False
    start = name + "."
    return any(
        each.startswith(start) and users_own_file(module) is not None
        for each, module in list(sys.modules.items())
    )


def _locations(spec: Any) -> tuple[str | None, tuple[str, ...] | None]:
    """Return a module's file and a package's folders, as this process sees them."""
    file = spec.origin if getattr(spec, "has_location", False) else None
    folders = spec.submodule_search_locations
    try:
        folders = None if folders is None else tuple(map(_absolute, folders))
    except Exception:  # it is of somebody's own making, and computes
        folders = None
    return (_absolute(file) if isinstance(file, str) else None), folders


def _is_own(path: str, roots: Iterable[str]) -> bool:
    real = _real(path)
    return not is_installed(real) and any(real == root or _is_under(real, root) for root in roots)


def _is_under(path: str, folder: str) -> bool:
    return path.startswith(folder if folder.endswith(os.sep) else folder + os.sep)


def _is_part(name: str) -> bool:
    return name not in ("", ".", "..", "__pycache__") and not name.endswith(".pyc")


def _is_inside(path: str) -> bool:
    """Whether a path with slashes stays in its folder, and away from what Python makes itself."""
    if "\0" in path or "\\" in path or len(path) > 4 * LONGEST_NAME:
        return False
    return all(map(_is_part, path.split("/")))


def _digest(content: bytes) -> str:
    from hashlib import sha256

    return sha256(content).hexdigest()
