"""
The tests on the Pythons of other Debian releases, each in a root of its own made by debootstrap.

::

    python3 tests/support/roots.py trixie                       # Python 3.13, the whole suite
    python3 tests/support/roots.py trixie pypy3 tests/contract  # PyPy, a part
    python3 tests/support/roots.py sid python3.14               # 3.15 likewise
    python3 tests/support/roots.py sid python3.14 python3.15 tests/unit/payload  # both are there
    python3 tests/support/roots.py --why-not                    # why it cannot work here, if so

Needs root, debootstrap, unshare and a mirror as apt has it. Roots stay in
``REMOTE_EXECUTOR_TEST_ROOTS`` (by default below the user's cache) and are used again. The tests run
there as an ordinary user, in a copy of the checkout, and all that they start ends with them. The
first Python runs them; others are there for what travels. What is behind them goes to pytest.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["Root", "mirror", "why_not"]

CHECKOUT = Path(__file__).resolve().parents[2]
PLACE = Path(
    os.environ.get("REMOTE_EXECUTOR_TEST_ROOTS")
    or Path.home() / ".cache" / "remote_executor-test-roots"
)
USUAL_MIRROR = "http://deb.debian.org/debian"
USER = "tester"
_PYTHON = re.compile(r"python3(\.\d+)?|pypy3")
SECONDS = 1800
"""For the tests. Debootstrap and pip have as much, each."""

PASSED = ("REMOTE_EXECUTOR_TEST_SCALE", "REMOTE_EXECUTOR_TEST_EXTRAS")
UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
PACKAGES = ["ca-certificates", "gcc", "git", "iproute2", "libc6-dev", "openssh-client", "procps"]

# What the extra "test" brings and PyPy has no wheels of is left out there.
FOR_PYPY = [
    "attrs",
    "hypothesis>=6.100,<6.130",  # later ones hold compiled code that PyPy does not load
    "psutil",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "tqdm",
]

ENTER = """
set -e
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
umount "$root/dev/shm" 2>/dev/null || true
mount -t tmpfs -o size=2g,mode=1777 shm "$root/dev/shm"
exec env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin USER="$user" \
    LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive $passed \
    chroot --userspec="$user:$user" "$root" \
    sh -c 'eval "HOME=~$USER"; export HOME; cd && exec "$@"' sh "$@"
"""


def files_of(checkout: Path) -> list[str]:
    """Return the paths of a checkout's files, or of those in a copy that ``.ci/run`` has made."""
    if not (checkout / ".git").exists():
        found = []
        for folder, folders, files in os.walk(checkout):
            folders[:] = [
                each
                for each in folders
                if each in (".ci", ".github")
                or not (each.startswith(".") or each == "__pycache__" or each.endswith(".egg-info"))
            ]
            found += [os.path.relpath(os.path.join(folder, each), checkout) for each in files]
        return found
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=checkout,
        capture_output=True,
        check=True,
    )
    return [name for name in os.fsdecode(listed.stdout).split("\0") if name]


def why_not() -> str | None:
    """Return why no root can be made here, or None."""
    if os.geteuid():
        return "only root can make one"
    for program, package in (("debootstrap", "debootstrap"), ("unshare", "util-linux")):
        if shutil.which(program) is None:
            return f"there is no {program} (Debian's package {package})"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-c", "mount --make-rprivate /"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no right to make namespaces ({tried.stderr.strip()})" if tried.returncode else None


def mirror(texts: list[str]) -> str:
    """
    Return the mirror that apt uses.

    Args:
        texts: What stands in its lists of sources, in either form.
    """
    for text in texts:
        for line in text.splitlines():
            found = re.match(r"(?:URIs:|deb(?:\s+\[[^]]*\])?)\s+(\S+)", line)
            if found and "security" not in found[1]:
                return found[1]
    return USUAL_MIRROR


def _sources() -> list[str]:
    folder = Path("/etc/apt")
    paths = [*sorted(folder.glob("sources.list.d/*.sources")), folder / "sources.list"]
    return [path.read_text() for path in paths if path.exists()]


class Root:
    """
    A minimal Debian in a folder.

    Args:
        suite: "trixie", "sid" or another release.
    """

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self.path = PLACE / f"root-{suite}"

    def make(self) -> None:
        """Make it, unless it is there."""
        debs = PLACE / "debs"
        debs.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            # Under another name until it is whole: one that was begun is no root.
            begun = self.path.with_suffix(".begun")
            shutil.rmtree(begun, ignore_errors=True)
            words = ["debootstrap", "--variant=minbase", f"--cache-dir={debs}"]
            subprocess.run(
                [*words, self.suite, str(begun), mirror(_sources())],
                stdout=subprocess.DEVNULL,
                timeout=SECONDS,
                check=True,
            )
            begun.rename(self.path)
        for name in ("resolv.conf", "hosts"):
            shutil.copy(f"/etc/{name}", self.path / "etc" / name)
        # A mirror may stand still.
        (self.path / "etc/apt/apt.conf.d/97valid").write_text(
            'Acquire::Check-Valid-Until "false";\n'
        )
        if not (self.path / "home" / USER).exists():
            self.run("root", "useradd", "-m", "-s", "/bin/bash", USER)
        self._trust()

    def _trust(self) -> None:
        """Trust whom this machine trusts, for pip."""
        bundle = Path("/etc/ssl/certs/ca-certificates.crt")
        if bundle.exists():
            place = self.path / "etc/ssl/certs/of-the-host.crt"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(bundle, place)
            text = "[global]\ncert = /etc/ssl/certs/of-the-host.crt\n"
            (self.path / "etc/pip.conf").write_text(text)

    def install(self, pythons: list[str]) -> None:
        """Install Pythons and what the tests want, unless that is there."""
        wanted = [f"{python}{part}" for python in pythons for part in ("", "-venv", "-dev")]
        listed = self.path / "etc/packages-of-the-tests"
        there = set(listed.read_text().split()) if listed.exists() else set()
        missing = sorted({*PACKAGES, *wanted} - there)
        if not missing:
            return
        self.run("root", "apt-get", "update", "-q")
        self.run("root", "apt-get", "install", "-qy", "--no-install-recommends", *missing)
        listed.write_text("\n".join(sorted(there.union(missing))) + "\n")

    def copy(self, checkout: Path) -> None:
        """Put a copy of the checkout's files into the user's home."""
        target = self.path / "home" / USER / "checkout"
        shutil.rmtree(target, ignore_errors=True)
        for name in files_of(checkout):
            if (checkout / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(checkout / name, target / name)
        self.run("root", "chown", "-R", f"{USER}:{USER}", f"/home/{USER}/checkout")

    def test(self, python: str, arguments: list[str]) -> int:
        """Install the checkout with what it needs, run pytest; return its exit code."""
        wanted = ["-e", ".", *FOR_PYPY] if python == "pypy3" else ["-e", ".[test]"]
        venv = f"../venv-{python}"  # it stays
        script = f'cd checkout && {python} -m venv {venv} && {venv}/bin/pip install -q "$@"'
        self.run(USER, "sh", "-c", script, "sh", *wanted)
        script = f'cd checkout && exec {venv}/bin/python -m pytest "$@"'
        done = self._enter(USER, ["sh", "-c", script, "sh", *arguments])
        return done.returncode

    def run(self, user: str, *command: str) -> None:
        """Run a command there; an error if it fails."""
        self._enter(user, list(command)).check_returncode()

    def _enter(self, user: str, command: list[str]) -> subprocess.CompletedProcess[bytes]:
        passed = [
            f"{name}={value}" for name, value in os.environ.items() if name.startswith(PASSED)
        ]
        return subprocess.run(
            [*UNSHARE, "sh", "-c", ENTER, "sh", *command],
            env={
                **os.environ,
                "root": str(self.path),
                "user": user,
                "passed": " ".join(passed),
            },
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )


def main(arguments: list[str]) -> int:
    """Make a root and run the tests there, as the module says."""
    reason = why_not()
    if arguments == ["--why-not"]:
        print(reason or "", end="\n" if reason else "")
        return 0
    if not arguments or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    if reason is not None:
        print(f"roots.py: {reason}", file=sys.stderr)
        return 1
    suite, *rest = arguments
    pythons = list(itertools.takewhile(_PYTHON.fullmatch, rest))
    rest = rest[len(pythons) :]
    pythons = pythons or ["python3"]
    root = Root(suite)
    root.make()
    root.install(pythons)
    root.copy(CHECKOUT)
    return root.test(pythons[0], rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
