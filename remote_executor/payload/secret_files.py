"""
Which files of a package look like secrets.

What lies in the folder of a package is served to workers as its data. A key, a dump of passwords or
a database may lie there too, left by somebody who never meant it to travel. Names tell, and for
keys and databases under other names the first bytes do. Sources in Python are not looked at: they
are code, and what a task imports it needs.
"""

from __future__ import annotations

import re

__all__ = ["is_environment_file", "why_secret"]

WORDS = frozenset(
    [
        "credential",
        "credentials",
        "htpasswd",
        "keytab",
        "kubeconfig",
        "netrc",
        "passphrase",
        "passphrases",
        "passwd",
        "password",
        "passwords",
        "pgpass",
        "secret",
        "secrets",
        "tfstate",
    ]
)
"""Of a name that has one of these words in it: ``aws-credentials.json``, ``client_secret.txt``."""

NAMES = frozenset(("shadow", "token", "token.json", "token.txt", "wallet.dat"))

ENDINGS = {
    "a key or a certificate": [
        ".asc",
        ".gpg",
        ".jks",
        ".kdb",
        ".kdbx",
        ".key",
        ".keys",
        ".keystore",
        ".keytab",
        ".ovpn",
        ".p12",
        ".p8",
        ".pem",
        ".pfx",
        ".pk8",
        ".pkcs12",
        ".pkcs8",
        ".ppk",
        ".pvk",
        ".token",
        ".truststore",
    ],
    "a database": [
        ".accdb",
        ".db",
        ".db3",
        ".duckdb",
        ".ldb",
        ".mdb",
        ".mdf",
        ".rdb",
        ".s3db",
        ".sqlite",
        ".sqlite2",
        ".sqlite3",
        ".sqlitedb",
    ],
}

BESIDE = re.compile(r"[-.](wal|shm|journal|bak|backup|old|orig|save|swp|enc|[0-9]+)$|~$")
"""What stands after the ending of a copy, and of the files beside a database."""

KEY_FILE = re.compile(r"id_(rsa|dsa|ecdsa|ed25519|xmss)")
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY|^PuTTY-User-Key-File")
LOOKED_AT = 4096
DATABASE = b"SQLite format 3\0"


def is_environment_file(name: str) -> bool:
    """Tell ``.env`` and its kin, such as ``.env.local`` and ``prod.env``."""
    lower = name.lower()
    return lower.startswith(".env") or lower.endswith(".env")


def why_secret(path: str, content: bytes = b"") -> str | None:
    """
    Tell why a file looks like a secret.

    Args:
        path: Its path in the package, with slashes.
        content: What is in it, if that is known.

    Returns:
        What it seems to be; None if it seems harmless.
    """
    *folders, name = path.split("/")
    if name.lower().endswith((".py", ".pyi")):
        return None
    for each in folders:
        if _has_word(each):
            return f"it is in the folder {each!r}"
    found = _by_name(name)
    if found is None and PRIVATE_KEY.search(content[:LOOKED_AT]):
        found = "there is a private key in it"
    if found is None and content.startswith(DATABASE):
        found = "it is a database"
    return found


def _by_name(name: str) -> str | None:
    lower = name.lower()
    while found := BESIDE.search(lower):
        lower = lower[: found.start()]
    if is_environment_file(name):
        return "its name is that of a file of environment variables"
    if _has_word(name) or lower in NAMES or KEY_FILE.match(lower):
        return "its name is that of a secret"
    for what, endings in ENDINGS.items():
        if lower.endswith(tuple(endings)):
            return f"its name is that of {what}"
    return None


def _has_word(name: str) -> bool:
    # "clientSecret" has it too; "secretary" has not.
    parts = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()
    return not WORDS.isdisjoint(re.split(r"[^a-z]+", parts))
