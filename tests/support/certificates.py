"""Authorities and certificates for the tests of TLS, made anew in a temporary folder."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Any

from tests.support.tools import require_module

__all__ = ["Authority"]


class Authority:
    """
    Signs certificates.

    Args:
        folder: Where the PEM files go.
        name: Its name; also that of its files.

    Attributes:
        path: Its own certificate.
    """

    def __init__(self, folder: Path, name: str) -> None:
        require_module("cryptography", "the extra tls")
        self.folder = folder
        self.name = name
        self._key = _new_key()
        certificate = _build(name, name, self._key, self._key, [], 10, authority=True)
        self.path = str(folder / f"{name}.pem")
        Path(self.path).write_bytes(_pem(certificate))

    def sign(
        self, name: str, *hosts: str, days: int = 10, password: str | None = None
    ) -> tuple[str, str]:
        """
        Make a certificate and its key; return the paths of both.

        Args:
            name: Whose it is; also that of the files.
            hosts: The names and numbers in it.
            days: How long it is valid; below 0 if it no longer is.
            password: Encrypts the key.
        """
        from cryptography.hazmat.primitives import serialization

        key = _new_key()
        certificate = _build(name, self.name, key, self._key, list(hosts), days)
        encryption: Any = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password.encode())
        paths = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        paths[0].write_bytes(_pem(certificate))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
            )
        )
        return str(paths[0]), str(paths[1])


def _new_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _pem(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    data: bytes = certificate.public_bytes(Encoding.PEM)
    return data


def _build(
    name: str,
    issuer: str,
    key: Any,
    signs: Any,
    hosts: list[str],
    days: int,
    authority: bool = False,
) -> Any:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.timezone.utc)
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=20))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signs.public_key()), critical=False
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=authority,
                crl_sign=authority,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signs, hashes.SHA256())
