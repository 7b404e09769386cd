"""
Hosts of a test's own: network namespaces with a cable between each and the next.

They need root and iproute2, and a kernel (or a container) that lets us; where that is not so, the
test is skipped and says so.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.tools import require

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Chain"]


class Chain:
    """
    A chain of hosts: this one, the first, the second behind the first, and so on.

    Nothing is routed: each reaches its neighbours only.

    Args:
        count: How many hosts beside this one.

    Attributes:
        names: The namespaces.
        addresses: Each host's address on the cable to the one before it.
    """

    def __init__(self, count: int) -> None:
        self._ip = require("ip", "Debian's package iproute2")
        tag = f"{os.getpid() % 10000:04d}"
        self.names = [f"re{tag}n{number}" for number in range(count)]
        self._cables = [f"re{tag}c{number}" for number in range(count)]
        net = 10 + os.getpid() % 200
        self.addresses = [f"10.231.{(net + number) % 250}.2" for number in range(count)]
        try:
            for number, name in enumerate(self.names):
                self._run("netns", "add", name)
                self._run("-n", name, "link", "set", "lo", "up")
                self._plug(number, name)
        except (OSError, subprocess.SubprocessError) as exc:
            self.close()
            words = getattr(exc, "stderr", None) or b""
            # No tool is missing, so this is no failure in any case: not every machine allows it.
            pytest.skip(f"no right to make network namespaces ({words.decode().strip() or exc})")

    def _plug(self, number: int, name: str) -> None:
        near, far = self._cables[number], f"{self._cables[number]}b"
        before = ["-n", self.names[number - 1]] if number else []
        base = self.addresses[number].rpartition(".")[0]
        self._run(*before, "link", "add", near, "type", "veth", "peer", "name", far)
        self._run(*before, "link", "set", far, "netns", name)
        self._run(*before, "addr", "add", f"{base}.1/30", "dev", near)
        self._run("-n", name, "addr", "add", f"{base}.2/30", "dev", far)
        self._run(*before, "link", "set", near, "up")
        self._run("-n", name, "link", "set", far, "up")

    def _run(self, *words: str) -> None:
        subprocess.run([self._ip, *words], check=True, capture_output=True, timeout=30)

    def inside(self, number: int) -> tuple[str, ...]:
        """Return the words that run a command on a host."""
        return (self._ip, "netns", "exec", self.names[number])

    def unplug(self) -> None:
        """Cut the cable between this host and the first, without a word to either."""
        self._run("link", "set", self._cables[0], "down")

    def plug(self) -> None:
        """Put it back."""
        self._run("link", "set", self._cables[0], "up")

    def close(self) -> None:
        """Remove all of it."""
        for name in self.names:
            subprocess.run(
                [self._ip, "netns", "del", name], check=False, capture_output=True, timeout=30
            )
        subprocess.run(
            [self._ip, "link", "del", self._cables[0]],
            check=False,
            capture_output=True,
            timeout=30,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)
