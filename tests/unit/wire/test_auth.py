"""Authentication: who knows the secret is believed, and nobody else, whatever he has overheard."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from remote_executor.wire.auth import NoAuth, TokenAuth
from tests.support.wires import SECRET

OTHER = b"o" * 32


def client(*secrets, nonce=b"c" * 32):
    return TokenAuth("client", secrets or (SECRET,), nonce)


def server(*secrets, nonce=b"s" * 32):
    return TokenAuth("server", secrets or (SECRET,), nonce)


def accepts(one, other):
    """Tell whether ``one`` believes what ``other`` says when they talk to each other."""
    return one.verify(other.opening(), other.proof(one.opening()))


def test_A1_who_knows_the_secret_is_believed_by_both_ends():
    ours, theirs = client(), server()

    assert accepts(theirs, ours)
    assert accepts(ours, theirs)


def test_A2_a_wrong_secret_is_not_believed_by_either_end():
    assert not accepts(server(), client(OTHER))
    assert not accepts(client(), server(OTHER))


def test_A1_the_secret_itself_is_not_in_what_is_said():
    ours = client()

    said = ours.opening() + ours.proof(server().opening())

    assert SECRET.hex() not in said
    assert SECRET.decode() not in said


def test_the_proof_is_the_documented_hmac():
    """Who writes a peer in another language needs this line and no more."""
    ours, theirs = client(), server()
    text = b"remote_executor 1\0client\0" + b"\0".join((b"63" * 32, b"73" * 32))

    assert ours.opening() == "63" * 32
    assert ours.proof(theirs.opening()) == hmac.new(SECRET, text, hashlib.sha256).hexdigest()


def test_each_accepted_secret_is_answered_with_the_same():
    """Tokens are rotated thus: the server knows the old one and the new one for a while."""
    for secret in (SECRET, OTHER):
        ours, theirs = client(secret), server(OTHER, SECRET)

        assert accepts(theirs, ours)
        assert accepts(ours, theirs)


def test_A9_secrets_are_those_given_at_the_start():
    secrets = [SECRET]
    theirs = server(*secrets)

    secrets[:] = [OTHER]

    assert accepts(theirs, client(SECRET))
    assert not accepts(theirs, client(OTHER))


def test_after_a_wrong_proof_a_server_still_answers_with_its_first_secret():
    theirs = server(SECRET, OTHER)
    accepts(theirs, client(b"wrong"))

    assert accepts(client(SECRET), theirs)


# --------------------------------------------------------------------- what is overheard


def test_a_proof_is_worth_nothing_in_another_conversation():
    overheard = client().proof(server().opening())
    fresh = server(nonce=b"t" * 32)

    assert not fresh.verify(client().opening(), overheard)


def test_a_proof_sent_back_to_its_author_is_refused():
    """Reflection: an impostor has no proof of its own, so it returns ours."""
    ours = client()
    impostor_opening = server().opening()
    ours_proof = ours.proof(impostor_opening)

    assert not ours.verify(impostor_opening, ours_proof)
    assert not ours.verify(ours.opening(), ours.proof(ours.opening()))


def test_two_clients_cannot_be_played_against_each_other():
    one, two = client(), client(nonce=b"d" * 32)

    assert not accepts(one, two)


def test_two_servers_cannot_be_played_against_each_other():
    one, two = server(), server(nonce=b"d" * 32)

    assert not accepts(one, two)


def test_an_echoed_nonce_is_refused_even_with_a_right_proof():
    theirs = server(nonce=b"c" * 32)

    assert not accepts(theirs, client(nonce=b"c" * 32))


@pytest.mark.parametrize("opening", ["", "00", "63" * 31, "63" * 33, "63" * 32 + "\0" + "73" * 32])
def test_an_opening_that_is_no_nonce_is_refused_even_with_a_right_proof(opening):
    """Else the border between the two nonces could be moved."""
    ours, theirs = client(), server()
    ours._opening = opening

    assert not accepts(theirs, ours)


@pytest.mark.parametrize("proof", ["", "0", "g" * 64, "0" * 64, "ü", "\ud800", "x" * 10_000])
def test_any_text_can_be_a_wrong_proof(proof):
    assert not server().verify(client().opening(), proof)


@pytest.mark.parametrize("opening", ["", "\ud800", "\0", "x" * 10_000])
def test_any_text_can_be_a_peers_opening(opening):
    assert len(client().proof(opening)) == 64
    assert not server().verify(opening, "0" * 64)


# --------------------------------------------------------------------------- local misuse


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_nonce_has_32_bytes(length):
    with pytest.raises(ValueError, match=f"32 bytes, not {length}"):
        TokenAuth("client", (SECRET,), bytes(length))


@pytest.mark.parametrize("secrets", [(), (b"",), (SECRET, b"")])
def test_an_empty_secret_is_no_secret(secrets):
    with pytest.raises(ValueError, match="needs a secret"):
        TokenAuth("client", secrets, b"c" * 32)


# --------------------------------------------------------------------------------- none


def test_no_auth_says_nothing_and_accepts():
    mechanism = NoAuth()

    assert (mechanism.name, mechanism.opening(), mechanism.proof("x")) == ("none", "", "")
    assert mechanism.verify("x", "y")
