"""Servers on this machine: several with one call, all of them or none (lfarm's launcher)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from remote_executor.client.admin import end_server
from remote_executor.errors import FarmError
from remote_executor.net.addresses import parse_address
from remote_executor.server.serve import ServerHandle, start_server

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from remote_executor.net.addresses import Address, AddressLike
    from remote_executor.net.security import AuthLike, TLSLike

__all__ = ["LocalServers", "end_all", "end_local_servers", "start_local_servers"]


class LocalServers:
    """
    Servers that were started together. Use it in a ``with`` statement, or call :meth:`stop`.

    Attributes:
        handles: One for each server.
    """

    def __init__(self, handles: list[ServerHandle]) -> None:
        self.handles = handles

    def __repr__(self) -> str:
        return f"<LocalServers {', '.join(map(str, self.addresses))}>"

    def __iter__(self) -> Iterator[ServerHandle]:
        return iter(self.handles)

    def __len__(self) -> int:
        return len(self.handles)

    def __getitem__(self, index: int) -> ServerHandle:
        return self.handles[index]

    @property
    def addresses(self) -> list[Address]:
        """Where they are: for ``FarmExecutor(addresses=...)``."""
        return [handle.address for handle in self.handles]

    def stop(self) -> None:
        """End them all, at once, with what they run."""
        for handle in self.handles:
            handle.stop()

    def __enter__(self) -> LocalServers:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def start_local_servers(addresses: int | Iterable[AddressLike], **options: Any) -> LocalServers:
    """
    Start several servers on this machine. If one cannot start, those that did are ended.

    Args:
        addresses: How many, each on a free port of the loopback; or where each is to listen.
        options: For each of them, as for :func:`start_server`.

    Returns:
        The servers; all of them answer.

    Raises:
        AddressError: If an address cannot be meant, before anything is started.
        ConnectionFailed: If one of them cannot start.
    """
    if isinstance(addresses, int):
        places = [parse_address("127.0.0.1:0")] * addresses
    else:
        places = [parse_address(address) for address in addresses]
    handles: list[ServerHandle] = []
    try:
        handles.extend(start_server(address=place, **options) for place in places)
    except BaseException:
        LocalServers(handles).stop()
        raise
    return LocalServers(handles)


def end_local_servers(
    servers: LocalServers | Iterable[AddressLike],
    *,
    auth: AuthLike = None,
    tls: TLSLike = None,
) -> None:
    """
    Have servers end when their clients are done. One that cannot be reached is a warning.

    Args:
        servers: What :func:`start_local_servers` returned, or addresses.
        auth: How they know us; as for :class:`FarmExecutor`.
        tls: Whether and how to speak TLS; as for :class:`FarmExecutor`.

    Raises:
        AddressError: If an address cannot be meant.
    """
    end_all(servers.addresses if isinstance(servers, LocalServers) else servers, auth, tls)


def end_all(addresses: Iterable[AddressLike], auth: AuthLike, tls: TLSLike) -> None:
    """
    Have servers end when their clients are done; warn of those that cannot be reached.

    Args:
        addresses: Where they are.
        auth: How they know us.
        tls: Whether and how to speak TLS.
    """
    for address in [parse_address(one) for one in addresses]:
        try:
            end_server(address, auth=auth, tls=tls)
        except FarmError as exc:
            warnings.warn(f"server {address} was not ended: {exc}", RuntimeWarning, stacklevel=3)
