"""
A Kerberos realm of the tests' own: a real MIT KDC on loopback, all of it in a temporary folder.

No file of the system is read or changed: all programs are led to the folder by the environment.
"""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from tests.support.faults import free_port
from tests.support.scale import scaled
from tests.support.tools import require
from tests.support.waiting import wait_until

__all__ = ["REALM", "Realm"]

REALM = "TEST.EXAMPLE"
KDC_PACKAGE = "Debian's krb5-kdc, krb5-admin-server and krb5-user"


class Realm:
    """
    A realm with a KDC. Call :meth:`stop` at the end.

    Args:
        folder: Where everything goes.

    Attributes:
        env: What leads programs here: ``KRB5_CONFIG`` and more.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kadmin = require("kadmin.local", KDC_PACKAGE)
        self._kinit = require("kinit", KDC_PACKAGE)
        create, kdc = require("kdb5_util", KDC_PACKAGE), require("krb5kdc", KDC_PACKAGE)
        self.port = free_port()
        config, kdc_config = folder / "krb5.conf", folder / "kdc.conf"
        config.write_text(
            f"""[libdefaults]
    default_realm = {REALM}
    dns_lookup_kdc = false
    dns_lookup_realm = false
    dns_canonicalize_hostname = false
    rdns = false
    udp_preference_limit = 1
[realms]
    {REALM} = {{
        kdc = 127.0.0.1:{self.port}
    }}
[domain_realm]
    localhost = {REALM}
    127.0.0.1 = {REALM}
"""
        )
        kdc_config.write_text(
            f"""[kdcdefaults]
    kdc_listen = 127.0.0.1:{self.port}
    kdc_tcp_listen = 127.0.0.1:{self.port}
[realms]
    {REALM} = {{
        database_name = {folder}/principal
        key_stash_file = {folder}/stash
        acl_file = {folder}/acl
        max_life = 1h
    }}
[logging]
    kdc = FILE:{folder}/kdc.log
"""
        )
        self.env = {
            "KRB5_CONFIG": str(config),
            "KRB5_KDC_PROFILE": str(kdc_config),
            "KRB5CCNAME": f"FILE:{folder}/nobody",
            "KRB5_KTNAME": f"FILE:{folder}/none.keytab",
            "KRB5RCACHETYPE": "none",
        }
        self._run(create, "create", "-s", "-r", REALM, "-P", "master of the realm")
        self._kdc = kdc
        self.start()

    def start(self) -> None:
        """Start the KDC, at first or after :meth:`stop`."""
        self._process = subprocess.Popen(
            [self._kdc, "-n", "-r", REALM, "-P", str(self.folder / "pid")],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(self._answers, 10, "a KDC that answers")
        except BaseException:
            self.stop()
            raise

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self.folder / "kdc.log").read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.env}

    def _run(self, *command: str, given: str = "") -> None:
        done = subprocess.run(
            command,
            env=self._environment(),
            input=given,
            capture_output=True,
            text=True,
            timeout=scaled(20),
        )
        assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"

    def stop(self) -> None:
        """End the KDC."""
        self._process.terminate()
        try:
            self._process.wait(scaled(5))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def keytab(self, *principals: str) -> str:
        """Make principals with random keys; return the keytab that holds them."""
        path = self.folder / f"{principals[0].replace('/', '-')}.keytab"
        for principal in principals:
            self._run(self._kadmin, "-r", REALM, "addprinc", "-randkey", principal)
            self._run(self._kadmin, "-r", REALM, "ktadd", "-k", str(path), principal)
        return f"FILE:{path}"

    def ticket(self, user: str, life: str = "10m") -> str:
        """
        Make a user, if there is none of that name, and log him in; return the ticket's cache.

        Args:
            user: His name.
            life: How long the ticket is valid.
        """
        password = f"password of {user}"
        subprocess.run(
            [self._kadmin, "-r", REALM, "addprinc", "-pw", password, user],
            env=self._environment(),
            capture_output=True,
            timeout=scaled(20),
        )
        cache = f"FILE:{self.folder}/{user}.{life}.cache"
        self._run(self._kinit, "-c", cache, "-l", life, user, given=password + "\n")
        return cache
