"""
SSH connections by paramiko, and by the program ssh to hosts that want what paramiko cannot do.

Such are FIDO keys, authorities of host keys, and host key algorithms that paramiko lacks. That the
other could do it stands in the reason why paramiko cannot log in.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from remote_executor.errors import LaunchFailed
from remote_executor.launch.clients import TRY_OPENSSH
from remote_executor.launch.openssh_client import OpenSSHClient
from remote_executor.launch.paramiko_client import ParamikoClient

if TYPE_CHECKING:
    from remote_executor.launch.clients import Connection
    from remote_executor.launch.hosts import SSHHost
    from remote_executor.launch.stages import Progress
    from remote_executor.net.addresses import Address

__all__ = ["AutoClient"]

log = logging.getLogger("remote_executor.client")


class AutoClient:
    """
    Makes connections; see :class:`remote_executor.launch.clients.Client`.

    Args:
        host_keys: "strict" or "accept-new".
        ssh_config: A file to read instead of ``~/.ssh/config`` and the system's.

    Raises:
        ImportError: If paramiko is not installed.
        ValueError: If there is no program ssh.
    """

    def __init__(self, host_keys: str, ssh_config: str | None) -> None:
        self._paramiko = ParamikoClient(host_keys, ssh_config)
        self._openssh = OpenSSHClient(host_keys, ssh_config)
        self._hosts_of_openssh: set[str] = set()

    def connect(
        self, host: SSHHost, progress: Progress, address: Address | None, command: str | None
    ) -> Connection:
        """Connect and authenticate; see :class:`remote_executor.launch.clients.Client`."""
        if str(host) not in self._hosts_of_openssh:
            try:
                return self._paramiko.connect(host, progress, address, command)
            except LaunchFailed as exc:
                if TRY_OPENSSH not in exc.reason or host.password is not None:
                    raise
                log.info("%s: the program ssh is used: %s", host, exc.reason)
                self._hosts_of_openssh.add(str(host))
        return self._openssh.connect(host, progress, address, command)
