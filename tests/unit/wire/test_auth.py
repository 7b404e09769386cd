"""Authentication: who knows the secret is believed, and nobody else, whatever he has overheard."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from remote_executor.errors import Refused
from remote_executor.wire.auth import Auth, Mechanism, NoAuth, TokenAuth, binding_of
from tests.support.wires import SECRET

OTHER = b"o" * 32
HERE = binding_of(b"", b"client's hello", b"server's hello")
THERE = binding_of(b"", b"client's hello", b"another hello")


def client(*secrets):
    return TokenAuth("client", secrets or (SECRET,))


def server(*secrets):
    return TokenAuth("server", secrets or (SECRET,))


def talk(one, other, ours=HERE, theirs=HERE):
    """Have a client and a server speak with each other; the first that refuses raises."""
    one.step(other.step(one.step(b"", ours), theirs), ours)
    return one.done, other.done


def test_A1_who_knows_the_secret_is_believed_by_both_ends():
    assert talk(client(), server()) == (True, True)


def test_A2_a_wrong_secret_is_refused_with_what_to_do():
    with pytest.raises(Refused, match="compare the token files"):
        talk(client(OTHER), server())


def test_A2_a_server_that_does_not_know_the_secret_is_found_out():
    ours = client()
    ours.step(b"", HERE)

    with pytest.raises(Refused, match="impostor"):
        ours.step(hmac.digest(OTHER, b"server\0" + HERE, "sha256"), HERE)

    assert not ours.done


def test_A1_the_secret_itself_is_not_in_what_is_said():
    ours, theirs = client(), server()
    first = ours.step(b"", HERE)

    said = first + theirs.step(first, HERE)

    assert SECRET not in said
    assert len(said) == 64


def test_the_proof_is_the_documented_hmac():
    """Who writes a peer in another language needs these lines and no more."""
    parts = b"".join(
        len(part).to_bytes(4, "little") + part
        for part in (b"", b"client's hello", b"server's hello")
    )
    text = b"client\0" + b"remote_executor 1\0" + parts

    assert client().step(b"", HERE) == hmac.new(SECRET, text, hashlib.sha256).digest()


def test_each_accepted_secret_is_answered_with_the_same():
    """Tokens are rotated thus: the server knows the old one and the new one for a while."""
    for secret in (SECRET, OTHER):
        assert talk(client(secret), server(OTHER, SECRET)) == (True, True)


def test_A9_secrets_are_those_given_at_the_start():
    secrets = [SECRET]
    theirs = server(*secrets)

    secrets[:] = [OTHER]

    assert talk(client(SECRET), theirs) == (True, True)


# --------------------------------------------------------------------- what is overheard


def test_a_proof_is_worth_nothing_in_another_conversation():
    overheard = client().step(b"", THERE)

    with pytest.raises(Refused):
        server().step(overheard, HERE)


def test_a_proof_sent_back_to_its_author_is_refused():
    """Reflection: an impostor has no proof of its own, so it returns ours."""
    ours = client()

    with pytest.raises(Refused, match="impostor"):
        ours.step(ours.step(b"", HERE), HERE)


def test_whoever_stands_between_has_another_certificate_and_is_found_out():
    """The ends agree on all but the fingerprint: the server refuses, the client would too."""
    ours = binding_of(b"fingerprint of the middle", b"hello", b"hello")
    theirs = binding_of(b"fingerprint of the server", b"hello", b"hello")

    with pytest.raises(Refused, match="compare"):
        talk(client(), server(), ours, theirs)
    proof_of_the_server = server().step(client().step(b"", theirs), theirs)
    ends = client()
    ends.step(b"", ours)
    with pytest.raises(Refused, match="between us"):
        ends.step(proof_of_the_server, ours)


@pytest.mark.parametrize(
    "parts", [(b"", b"ab", b"c"), (b"a", b"", b"bc"), (b"", b"abc", b""), (b"abc", b"", b"")]
)
def test_no_border_between_two_parts_can_be_shifted(parts):
    assert binding_of(*parts) != binding_of(b"", b"a", b"bc")


@pytest.mark.parametrize("proof", [b"", b"0", b"0" * 32, b"x" * 31, b"x" * 33, b"x" * 10_000])
def test_any_bytes_can_be_a_wrong_proof(proof):
    theirs = server()

    with pytest.raises(Refused):
        theirs.step(proof, HERE)

    assert not theirs.done


# --------------------------------------------------------------------------- local misuse


@pytest.mark.parametrize("secrets", [(), (b"",), (SECRET, b"")])
def test_an_empty_secret_is_no_secret(secrets):
    with pytest.raises(ValueError, match="needs a secret"):
        TokenAuth("client", secrets)


# ------------------------------------------------------------------------ none, and one's own


def test_no_auth_says_nothing_and_accepts():
    mechanism = NoAuth()

    assert (mechanism.name, mechanism.step(b"x", HERE), mechanism.done) == ("none", b"", True)
    assert (mechanism.wraps, mechanism.peer_name) == (False, "")


def test_A8_a_mechanism_of_ones_own_needs_a_name_and_a_step():
    class Mine(Mechanism):
        name = "mine"

        def step(self, said, binding):
            self.done = True
            return b"here I am"

    class Makes(Auth):
        def client(self, host):
            return Mine()

        def server(self):
            return Mine

    mine = Makes().client("node1")

    assert mine.step(b"", HERE) == b"here I am"
    assert mine.wrap(b"data") == mine.unwrap(b"data") == b"data"
    assert (mine.done, Makes().server()().done, Makes.confidential) == (True, False, False)
