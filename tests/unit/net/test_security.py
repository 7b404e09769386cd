"""What ``auth=``, ``tls=`` and ``insecure=`` mean where, and which nonsense is refused."""

from __future__ import annotations

import ssl
import sys

import pytest

from remote_executor.net.addresses import parse_address
from remote_executor.net.security import auth_of, client_tls, is_exposed, server_tls, tls_of
from remote_executor.net.tls import TLS
from remote_executor.net.tokens import Token, renew_token
from remote_executor.wire.auth import Auth, NoAuth, binding_of

NEW, OLD = "a new secret in words", "an old secret in words"
SECRET = "a secret in some words"

NEAR = [parse_address(text) for text in ("127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/s")]
FAR = [parse_address(text) for text in ("node1:1", "0.0.0.0:1", "[::]:1", "192.0.2.1:1")]


class Encrypts(Auth):
    """A mechanism that needs no TLS."""

    confidential = True

    def client(self, host):
        return NoAuth()

    def server(self):
        return NoAuth


def test_A14_nothing_is_encrypted_nearby_and_everything_elsewhere():
    for address in NEAR:
        assert not client_tls(address, Token(SECRET), None)
        assert not server_tls(address, Token(SECRET), None, False)
    for address in FAR:
        assert client_tls(address, Token(SECRET), None) is True
        assert server_tls(address, Token(SECRET), None, False) is True
        assert not client_tls(address, Encrypts(), None)
        assert not server_tls(address, Encrypts(), None, False)


def test_A14_plain_text_elsewhere_must_be_asked_for_aloud():
    for address in FAR:
        with pytest.raises(ValueError, match="--insecure"):
            server_tls(address, Token(SECRET), False, False)
        assert server_tls(address, Token(SECRET), False, True) is False
        assert server_tls(address, Token(SECRET), None, True) is False
        assert client_tls(address, Token(SECRET), False) is False
        assert is_exposed(address, Token(SECRET), False)
        assert server_tls(address, Encrypts(), False, False) is False
    assert server_tls(NEAR[0], Token(SECRET), False, False) is False


@pytest.mark.parametrize("tls", [True, TLS(), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)])
def test_who_asks_for_tls_gets_it_anywhere(tls):
    for address in (*NEAR, *FAR):
        assert client_tls(address, Token(SECRET), tls_of(tls)) is tls
        assert server_tls(address, Token(SECRET), tls_of(tls), True) is tls


# -- auth=


def talk(client, server):
    binding = binding_of(b"", b"", b"")
    server.step(client.step(b"", binding), binding)
    return server.done


@pytest.mark.parametrize("given", [NEW, NEW.encode(), [NEW], (NEW, OLD), Token(NEW, OLD.encode())])
def test_a_secret_is_enough(given):
    assert talk(auth_of(given).client("h"), Token(NEW, "another that is long").server()())


def test_nothing_said_means_the_token_file(monkeypatch, tmp_path):
    monkeypatch.setenv("REMOTE_EXECUTOR_TOKEN_FILE", str(tmp_path / "token"))
    renew_token()
    client, server = auth_of(None), auth_of(Token())
    monkeypatch.setenv("REMOTE_EXECUTOR_TOKEN_FILE", str(tmp_path / "other"))  # A9: too late

    assert talk(client.client("h"), server.server()())
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_A9_a_server_accepts_the_tokens_of_its_start(monkeypatch, tmp_path):
    path = tmp_path / "token"
    monkeypatch.setenv("REMOTE_EXECUTOR_TOKEN_FILE", str(path))
    renew_token()
    auth = Token()
    make = auth.server()
    before = auth.client("h")
    path.unlink()

    assert talk(before, make())


def test_a_mechanism_of_ones_own_is_taken_as_it_is():
    auth = Encrypts()

    assert auth_of(auth) is auth


@pytest.mark.parametrize("wrong", [[], (), "", [""], ["a", "b", "c"]])
def test_no_secret_is_no_secret(wrong):
    with pytest.raises(ValueError, match="token"):
        auth_of(wrong)


@pytest.mark.parametrize("wrong", [5, [5], object(), NoAuth(), True])
def test_what_is_no_mechanism_is_refused(wrong):
    with pytest.raises(TypeError, match="must be"):
        auth_of(wrong)


def test_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("REMOTE_EXECUTOR_AUTH", "token")
    assert isinstance(auth_of(None), Token)
    monkeypatch.setenv("REMOTE_EXECUTOR_AUTH", "password")
    with pytest.raises(ValueError, match="token or gssapi, not 'password'"):
        auth_of(None)
    assert isinstance(auth_of(SECRET), Token)


def test_kerberos_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gssapi", None)
    monkeypatch.setenv("REMOTE_EXECUTOR_AUTH", "gssapi")

    with pytest.raises(ValueError, match=r"pip install 'gssapi>="):
        auth_of(None)


# -- tls=


@pytest.mark.parametrize(
    ("words", "meaning"), [("", None), ("on", True), ("1", True), ("OFF", False), ("no", False)]
)
def test_tls_by_the_environment(monkeypatch, words, meaning):
    monkeypatch.setenv("REMOTE_EXECUTOR_TLS", words)

    assert tls_of(None) is meaning
    assert tls_of(True) is True
    assert tls_of(False) is False


def test_files_by_the_environment(monkeypatch):
    for name in ("CERTIFICATE", "KEY", "CA", "PASSWORD", "NAME"):
        monkeypatch.setenv(f"REMOTE_EXECUTOR_TLS_{name}", name.lower())

    assert tls_of(None) == TLS("certificate", "key", "ca", "password", "name")
    monkeypatch.setenv("REMOTE_EXECUTOR_TLS", "off")
    assert tls_of(None) is False


@pytest.mark.parametrize("wrong", ["yes", 1, object(), []])
def test_what_is_no_tls_is_refused(wrong):
    with pytest.raises(TypeError, match="tls must be"):
        tls_of(wrong)


def test_a_switch_that_is_neither_on_nor_off(monkeypatch):
    monkeypatch.setenv("REMOTE_EXECUTOR_TLS", "perhaps")
    with pytest.raises(ValueError, match="on or off, not 'perhaps'"):
        tls_of(None)


def test_a_password_is_not_shown():
    assert "sesame" not in repr(TLS("c", "k", password="open sesame"))
