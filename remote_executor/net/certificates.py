"""A certificate that a server makes for itself when it starts; wraps the package cryptography."""

from __future__ import annotations

import datetime

__all__ = ["self_made"]

DAYS = 3650
"""Nobody looks at the dates: what counts is the fingerprint, and the key ends with its server."""


def self_made(name: str) -> tuple[bytes, bytes]:
    """
    Make a key (P-256) and a certificate for it that it signs itself.

    Args:
        name: What it is said to be for.

    Returns:
        The certificate and the key, both as PEM.

    Raises:
        ValueError: If the package cryptography is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    except ModuleNotFoundError as exc:
        raise ValueError(
            "a server cannot make a certificate without the package cryptography: "
            "pip install 'cryptography>=41', or give one by tls=TLS(certificate=..., key=...) "
            "(--tls-certificate, --tls-key)"
        ) from exc
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
