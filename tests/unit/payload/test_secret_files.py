"""Which files look like secrets."""

from __future__ import annotations

import pytest

from remote_executor.payload.secret_files import is_environment_file, why_secret


@pytest.mark.parametrize(
    "path",
    [
        "credentials",
        "credentials.json",
        "Credentials.YAML",
        "data/aws-credentials.ini",
        "gcpCredentials.json",
        "client_secret_1234.json",
        "secrets.toml",
        "secrets/api.txt",
        "passwords.csv",
        "db_password.txt",
        ".htpasswd",
        ".netrc",
        ".pgpass",
        "server.pem",
        "SERVER.PEM",
        "tls/server.key",
        "server.key.bak",
        "server.key~",
        "me.p12",
        "me.pfx",
        "store.jks",
        "me.ppk",
        "http.keytab",
        "vault.kdbx",
        "id_rsa",
        "id_rsa.pub",
        "id_rsa.old",
        "id_ed25519",
        "id_ecdsa-cert.pub",
        "ssh/id_dsa",
        ".env",
        ".env.local",
        ".envrc",
        "prod.env",
        "users.db",
        "users.sqlite",
        "users.sqlite3",
        "users.sqlite3-wal",
        "users.db-journal",
        "users.db.1",
        "users.mdb",
        "terraform.tfstate",
        "kubeconfig",
        "token",
        "api.token",
    ],
)
def test_names_of_secrets(path):
    assert why_secret(path) is not None


@pytest.mark.parametrize(
    "path",
    [
        "table.csv",
        "keys.csv",
        "keyboard.json",
        "monkey",
        "environment.yaml",
        "env.yaml",
        "envelope.txt",
        "secretary.txt",
        "tokens.txt",
        "tokenizer.json",
        "data/model.bin",
        "dbase.txt",
        "schema.sql",
        "identity.json",
        "credentials.py",
        "secrets/__init__.py",
        "passwords.pyi",
        "ca.crt",
    ],
)
def test_names_of_harmless_files(path):
    assert why_secret(path, b"1,2\n") is None


@pytest.mark.parametrize(
    "content",
    [
        b"-----BEGIN PRIVATE KEY-----\nMIIE",
        b"-----BEGIN RSA PRIVATE KEY-----\n",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
        b"Bag Attributes\n  localKeyID\n-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
        b"PuTTY-User-Key-File-3: ssh-ed25519\n",
        b"SQLite format 3\0\x10\0",
    ],
)
def test_keys_and_databases_under_other_names(content):
    assert why_secret("notes.txt", content) is not None
    assert why_secret("notes.py", content) is None
    assert why_secret("notes.txt", b"-----BEGIN CERTIFICATE-----\n") is None


def test_files_of_environment_variables():
    assert is_environment_file(".env.production")
    assert not is_environment_file("environment.yaml")
