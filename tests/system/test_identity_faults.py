"""Who may not come in by his identity: the right answer, the reason in the log and the audit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pydicom.data
import pytest

from tests import parts
from tests.loopback import request_pdu
from tests.system.raw import ASSOCIATE_AC, ASSOCIATE_RJ, PLAIN_LISTENER, Peer, identity_item
from tests.system.running import AUTHENTICATION, LOGIN, Node, cli, tcp

CT = Path(str(pydicom.data.get_testdata_file("CT_small.dcm")))
PASSCODE = "correct horse battery"
# Each test fails a few times and wants to know why, not that there were too many.
UNLOCKED = "[identity.lockout]\nfailures = 0\naddress_failures = 0\n"
REQUIRED = {'identity = "supports"': 'identity = "required"'}


@pytest.fixture(scope="module")
def node(template_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    home = Path(shutil.copytree(template_home, tmp_path_factory.mktemp("identity") / "home"))
    added = cli("user", "add", "--home", home, "ada", stdin=PASSCODE + "\n")
    assert added.returncode == 0, added.stderr
    more = UNLOCKED + PLAIN_LISTENER.format(identity="supports")
    with Node(home, more, change=REQUIRED) as running:
        yield running
    assert PASSCODE not in running.log
    assert not [one for one in running.records() if PASSCODE in one.xml]


REFUSED = {
    # options of storescu, what the audit trail says
    "a wrong passcode": (["-usr", "ada", "-pwd", "wrong"], "passcode"),
    "an empty passcode": (["-usr", "ada", "-epw"], "passcode"),
    "an unknown user": (["-usr", "eve", "-pwd", "wrong"], ""),
    "a name without a passcode": (["-usr", "ada"], ""),
    "no identity at all": ([], ""),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("response", [[], ["-rsp"]], ids=["", "rsp"])
def test_B5_refused_and_audited(case: str, response: list[str], node: Node) -> None:
    options, words = REFUSED[case]
    if response and not options:
        options = ["-usr", "eve"]
    before = len(node.records(AUTHENTICATION, LOGIN))
    argv = ["storescu", "-v", *node.credential(), *options, *(response if options else [])]
    done = parts.run([*argv, "127.0.0.1", str(node.port), CT])
    assert done.returncode != 0
    said = done.stdout + done.stderr
    # PS3.7 D.3.3.7: rejected-permanent.
    assert "Rejected Permanent" in said, said
    failed = node.wait_for_audit(
        lambda one: one.kind == LOGIN and one.outcome == 8 and words in one.words.lower(), case
    )
    assert failed.words
    assert "127.0.0.1" in failed.xml
    assert len(node.records(AUTHENTICATION, LOGIN)) >= before
    assert not node.kept()


def test_wrong_passcode_and_unknown_user_look_the_same_to_the_peer(node: Node) -> None:
    answers = set()
    for item in (identity_item(2, b"ada", b"wrong"), identity_item(2, b"eve", b"wrong")):
        with Peer(node.connect()) as peer:
            answers.add(peer.associate(request_pdu(user_information=item)))
    assert answers == {(ASSOCIATE_RJ, b"\0\x01\x02\x01")}  # PS3.7 D.3.3.7: 1, 2, 1


def test_B5_the_right_passcode_comes_in_and_is_answered(node: Node) -> None:
    argv = ["echoscu", *node.credential(), "127.0.0.1", str(node.port)]
    assert parts.run(argv).returncode != 0
    item = identity_item(2, b"ada", PASSCODE.encode(), respond=1)
    with Peer(node.connect()) as peer:
        kind, body = peer.associate(request_pdu(user_information=item))
    assert kind == ASSOCIATE_AC
    assert b"\x59\0" in body
    node.wait_for_audit(lambda one: one.kind == LOGIN and one.outcome == 0 and "ada" in one.users)


@pytest.mark.parametrize("respond", [0, 1])
def test_secrets_over_a_plain_listener_are_refused(respond: int, node: Node) -> None:
    item = identity_item(2, b"ada", PASSCODE.encode(), respond)
    with Peer(tcp(node.ports["clear"])) as peer:
        assert peer.associate(request_pdu(user_information=item))[0] == ASSOCIATE_RJ
    node.wait_for_audit(
        lambda one: one.kind == LOGIN and one.outcome == 8 and "TLS" in one.words,
        "of a passcode sent in clear",
    )


def test_send_does_not_offer_a_secret_without_TLS(node: Node, tmp_path: Path) -> None:
    secret = tmp_path / "passcode.txt"
    secret.write_text(PASSCODE + "\n")
    accepted = node.log.count("accepted")
    done = cli("send", "127.0.0.1", str(node.ports["clear"]), "--plain", "--user", "ada",
               "--passcode-file", secret, CT)  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "TLS" in done.stderr
    assert PASSCODE not in done.stderr + done.stdout
    assert node.log.count("accepted") == accepted


def test_a_user_removed_while_the_node_runs_is_out(node: Node) -> None:
    home = node.home
    assert cli("user", "add", "--home", home, "bob", stdin="another passcode\n").returncode == 0
    options = ["-usr", "bob", "-pwd", "another passcode", "-rsp"]
    argv = ["storescu", *node.credential(), *options, "127.0.0.1", str(node.port), CT]
    assert parts.run(argv).returncode == 0
    assert cli("user", "remove", "--home", home, "bob").returncode == 0
    assert parts.run(argv).returncode != 0


def test_two_identities_in_one_request(node: Node) -> None:
    items = identity_item(2, b"ada", PASSCODE.encode()) * 2
    with Peer(node.connect()) as peer:
        assert peer.associate(request_pdu(user_information=items))[0] != ASSOCIATE_AC


@pytest.mark.parametrize("kind", [0, 3, 4, 5, 6, 99, 255])
def test_D337_types_we_do_not_take_where_one_is_required(kind: int, node: Node) -> None:
    item = identity_item(kind, b"something", b"")
    with Peer(node.connect()) as peer:
        answer, body = peer.associate(request_pdu(user_information=item))
    assert (answer, body) == (ASSOCIATE_RJ, b"\0\x01\x02\x01")


def test_a_malformed_identity_item(node: Node) -> None:
    for item in (
        b"\x58\0\0\0",
        b"\x58\0\0\x02\x02\x01",
        b"\x58\0\0\x06\x02\x01\xff\xffad",
        identity_item(2, b"ada", b"\xff\xfe" + b"\0" * 10),
        identity_item(2, b"\xff\xfe\xff", b"x"),
    ):
        with Peer(node.connect()) as peer:
            assert peer.associate(request_pdu(user_information=item))[0] != ASSOCIATE_AC
    good = identity_item(2, b"ada", PASSCODE.encode())
    with Peer(node.connect()) as peer:
        assert peer.associate(request_pdu(user_information=good))[0] == ASSOCIATE_AC
