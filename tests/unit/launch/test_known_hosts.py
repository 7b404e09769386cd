"""``known_hosts`` as ssh reads it; ``ssh-keygen -F`` is asked the same."""

from __future__ import annotations

import re
import subprocess
import time

import pytest

from remote_executor.launch.known_hosts import KnownHosts, append_line, host_label, name_matches
from tests.support.tools import require

A, B = ("ssh-ed25519", "QUFB"), ("ssh-rsa", "QkJC")
NONE = ((), (), (), ())


def look_up(path, name="web", port=22):
    return KnownHosts().look_up([str(path)], name, port)


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("names", "label", "found"),
    [
        ("web", "web", True),
        ("WEB", "web", True),
        ("web", "webs", False),
        ("a,web,b", "web", True),
        ("w*", "web", True),
        ("*", "web", True),
        ("w?b", "web", True),
        ("w?", "web", False),
        ("*,!web", "web", False),
        ("!web,*", "web", False),
        ("!db,*", "web", True),
        ("!db", "web", False),
        ("[web]:22", "web", False),
        ("[web]:2222", "[web]:2222", True),
        ("[w*]:*", "[web]:2222", True),
        ("[we]b", "web", False),
        ("10.0.*", "10.0.0.7", True),
        ("fe80::*", "fe80::1%lo", True),
        ("|2|x|y", "web", False),
        ("|1|!|!", "web", False),
        ("", "web", False),
    ],
)
def test_names(names, label, found):
    assert name_matches(names, label) is found


def test_all_lines_count(tmp_path):
    file = write(
        tmp_path / "kh", "web ssh-ed25519 QUFB c\n# no\n\nweb,db ssh-rsa QkJC\nweb 35 1 2\n"
    )

    assert look_up(file).known == (A, B)
    assert look_up(file, "db").known == (B,)
    assert look_up(file, "no").known == ()


def test_several_keys_of_one_kind(tmp_path):
    file = write(tmp_path / "kh", "web ssh-ed25519 QUFB\nweb ssh-ed25519 QkJC\n")

    assert look_up(file).known == (A, ("ssh-ed25519", "QkJC"))


def test_a_line_without_a_port_vouches_for_all_ports(tmp_path):
    file = write(tmp_path / "kh", "web ssh-ed25519 QUFB\n[web]:2222 ssh-rsa QkJC\n")

    found = look_up(file, port=2222)
    assert (found.known, found.without_port) == ((B,), (A,))
    assert look_up(file, port=22).known == (A,)


def test_markers(tmp_path):
    file = write(
        tmp_path / "kh",
        "@revoked * ssh-rsa QkJC\n@cert-authority *.org ssh-ed25519 QUFB\n@odd web ssh-rsa QQ==\n",
    )

    assert look_up(file).revoked == (B,)
    assert look_up(file, "a.org").authorities == (A,)
    assert look_up(file).authorities == ()
    assert look_up(file).known == ()
    assert look_up(file, port=2222).revoked == (B,)


def test_bad_lines_and_missing_files_are_passed_over(tmp_path):
    file = write(
        tmp_path / "kh", "web\nweb ssh-rsa\n@revoked\nnonsense \x00 \x0c x\nweb ssh-rsa QkJC\n"
    )

    assert look_up(file).known == (B,)
    assert look_up(tmp_path / "none").known == ()
    assert look_up(file / "below a file").known == ()
    (tmp_path / "latin").write_bytes(b"web ssh-rsa QkJC caf\xe9\n")
    assert look_up(tmp_path / "latin").known == (B,)


def test_a_file_is_read_again_once_it_has_changed(tmp_path):
    file = write(tmp_path / "kh", "web ssh-rsa QkJC\n")
    hosts = KnownHosts()
    assert hosts.look_up([str(file)], "web", 22).known == (B,)
    lines = hosts._lines(str(file))
    assert hosts._lines(str(file)) is lines

    append_line(str(file), "web", A, False)

    assert hosts.look_up([str(file)], "WEB", 22).known == (B, A)


@pytest.mark.parametrize("before", ["", "db ssh-rsa QkJC\n", "db ssh-rsa QkJC"])
@pytest.mark.parametrize("hashed", [False, True])
def test_a_line_is_added_and_no_other_is_spoilt(tmp_path, before, hashed):
    file = write(tmp_path / "kh", before)

    append_line(str(file), host_label("web", 2222), A, hashed)

    assert look_up(file, port=2222).known == (A,)
    assert look_up(file, "db").known == ((B,) if before else ())
    assert ("web" in file.read_text()) is not hashed
    assert file.read_text().endswith("\n")


def test_a_file_is_made_with_its_folder(tmp_path):
    path = tmp_path / "ssh" / "kh"

    append_line(str(path), "web", A, False)

    assert path.read_text() == "web ssh-ed25519 QUFB\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


# -- what ssh-keygen says


@pytest.fixture(scope="module")
def keygen():
    return require("ssh-keygen", "Debian's package openssh-client")


@pytest.fixture(scope="module")
def public(keygen, tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "key"
    command = [keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    kind, text = path.with_suffix(".pub").read_text().split()[:2]
    return kind, text


NAMES = [
    "web",
    "WEB",
    "web,db",
    "w*",
    "w?b",
    "*",
    "*.org",
    "!web,*",
    "*,!web",
    "!db,w*",
    "[web]:2222",
    "[w*]:2222",
    "[web]:*",
    "10.0.0.?",
    "fe80::1",
    "[fe80::1]:2222",
    "a.org,[b.org]:22,c.org",
]
LABELS = ["web", "db", "a.org", "[web]:2222", "[db]:2222", "10.0.0.7", "fe80::1", "[fe80::1]:2222"]


@pytest.mark.parametrize("hashed", [False, True])
def test_lookups_agree_with_ssh_keygen(keygen, public, tmp_path, hashed):
    file = write(tmp_path / "kh", "".join(f"{names} {' '.join(public)}\n" for names in NAMES))
    if hashed:
        run = [keygen, "-q", "-H", "-f", str(file)]
        subprocess.run(run, check=True, capture_output=True)
    lines = file.read_text().splitlines()
    for label in LABELS:
        asked = [keygen, "-F", label, "-f", str(file)]
        said = subprocess.run(asked, check=False, capture_output=True, text=True).stdout
        theirs = set(map(int, re.findall(r"found: line (\d+)", said)))
        ours = {
            number for number, line in enumerate(lines, 1) if name_matches(line.split()[0], label)
        }
        assert ours == theirs, label


def test_ten_thousand_lines_are_read_once_and_soon(public, keygen, tmp_path):
    """Processor time, the best of some: others may use this machine, and its caches."""
    text = "".join(f"host{number}.org {' '.join(public)}\n" for number in range(10_000))
    file = write(tmp_path / "kh", text)
    hashed = write(tmp_path / "hashed", text)
    subprocess.run([keygen, "-q", "-H", "-f", str(hashed)], check=True, capture_output=True)

    for each in (file, hashed):
        took = []
        for _ in range(5):
            hosts = KnownHosts()
            begin = time.process_time()
            assert hosts.look_up([str(each)], "host9999.org", 22).known == (public,)
            took.append(time.process_time() - begin)
        assert min(took) < 0.2
