"""Figures of a node under `serve`: they move by what happened, and name nobody."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client.parser import text_string_to_metric_families

from dicom_secure_node.commands.status_report import summary
from dicom_secure_node.secure_node.status_socket import ask
from tests import parts
from tests.certs import DAY, Ca, key_pem, make_key, now
from tests.loopback import CT_SMALL, CT_STORAGE, request_pdu
from tests.system.raw import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    PLAIN_LISTENER,
    Peer,
    identity_item,
    small_ct,
)
from tests.system.running import Node, cli, closed_by_peer, configure, dcmtk_tls, tcp

DENY = """
[[access.rule]]
effect = "deny"
calling_ae = ["EVIL*"]

[[access.rule]]
effect = "allow"
"""


LABELS = ("version", "outcome", "how", "stage", "reason", "service", "folder", "repository", "role")
LABELS += ("file", "number", "le")


def with_page(port: int, more: str = "") -> str:
    return f"[metrics]\nport = {port}\n{more}"


def status(home: Path) -> dict[str, Any]:
    """Return what the verb would print, without the time a process takes to start."""
    return summary(ask(home))


def printed(home: Path) -> dict[str, Any]:
    """Return what ``status --json`` prints."""
    done = cli("status", "--home", home, "--json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return dict(json.loads(line))


def scrape(port: int, accept: str = "") -> str:
    url = f"http://127.0.0.1:{port}/metrics"
    asked = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(asked, timeout=20) as answer:  # noqa: S310 - http, as above
        return str(answer.read().decode())


def figures(text: str) -> dict[tuple[str, ...], float]:
    """Return the samples of a scrape by name and values of labels, in the order of `LABELS`."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert set(sample.labels) <= set(LABELS)
            ordered = (sample.labels[name] for name in LABELS if name in sample.labels)
            found[sample.name, *ordered] = sample.value
    return found


def moved(before: dict[tuple[str, ...], float], port: int) -> dict[tuple[str, ...], float]:
    """Return by how much counters have moved since, histograms' counts included."""
    after = figures(scrape(port))
    return {
        key: after[key] - before.get(key, 0)
        for key in after
        if key[0].endswith(("_total", "_count")) and after[key] != before.get(key, 0)
    }


def store(node: Node, *paths: Path, calling: str = "STORESCU") -> int:
    argv = ["storescu", *node.credential(), "-aet", calling, "127.0.0.1", str(node.port), *paths]
    return parts.run(argv).returncode


def quiet(home: Path) -> dict[str, Any]:
    """Return the figures once no association is open."""
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(status(home))
        return found["associations"]["open"] == 0 and found["connections"]["open"] == 0

    parts.wait_until(ended, "no association open")
    return found


# -- figures -------------------------------------------------------------------------------


def test_figures_move_by_exactly_what_happened(home: Path, tmp_path: Path) -> None:
    page = parts.free_port()
    stranger = Ca("Stranger").write(tmp_path, "stranger")
    with Node(home, with_page(page, DENY)) as node:
        before = figures(scrape(page))

        assert node.echo()
        quiet(home)
        assert moved(before, page) == {
            ("dicom_node_associations_total", "accepted"): 1,
            ("dicom_node_associations_ended_total", "released"): 1,
            ("dicom_node_requests_total", "C-ECHO"): 1,
            ("dicom_node_association_setup_seconds_count",): 1,
            ("dicom_node_association_duration_seconds_count",): 1,
        }

        before = figures(scrape(page))
        assert store(node, CT_SMALL, CT_SMALL) == 0
        quiet(home)
        size = sum(path.stat().st_size for path in node.kept().values())
        change = moved(before, page)
        stored = change.pop(("dicom_node_stored_bytes_total",))
        assert size < stored < 2 * size, "the same data set twice, without the file's header"
        assert change == {
            ("dicom_node_associations_total", "accepted"): 1,
            ("dicom_node_associations_ended_total", "released"): 1,
            ("dicom_node_stores_total", "kept"): 1,
            ("dicom_node_stores_total", "repeated"): 1,
            ("dicom_node_store_seconds_count",): 2,
            ("dicom_node_association_setup_seconds_count",): 1,
            ("dicom_node_association_duration_seconds_count",): 1,
        }

        before = figures(scrape(page))
        assert not node.echo("-aet", "EVIL1")
        quiet(home)
        assert moved(before, page) == {
            ("dicom_node_associations_total", "refused"): 1,
            ("dicom_node_refusals_total", "association", "access"): 1,
        }

        before = figures(scrape(page))
        tls = dcmtk_tls(stranger.key, stranger.crt, home / "pki" / "ca.crt")
        argv = ["echoscu", *tls, "127.0.0.1", str(node.port)]
        assert parts.run(argv).returncode != 0
        with tcp(node.port) as garbage:
            garbage.sendall(b"this is neither TLS nor DICOM\r\n" * 4)
            assert closed_by_peer(garbage)
        quiet(home)
        assert moved(before, page) == {
            ("dicom_node_refusals_total", "handshake", "unknown issuer"): 1,
            ("dicom_node_refusals_total", "handshake", "not TLS"): 1,
        }


def test_an_open_association_is_told_and_one_cut_off_is_counted(home: Path) -> None:
    with Node(home) as node:
        with Peer(node.connect()) as peer:
            assert peer.associate()[0] == ASSOCIATE_AC
            opened = partial(status, home)
            parts.wait_until(lambda: opened()["associations"]["open"] == 1, "one open")
            assert opened()["connections"]["open"] == 1
        associations = quiet(home)["associations"]
        assert associations["accepted"] == 1
        assert associations["released"] == 0
        assert associations["aborted"] + associations["lost"] == 1


def test_an_instance_that_is_refused_is_counted_by_its_status(home: Path) -> None:
    with Node(home) as node, Peer(node.connect()) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        assert peer.store(b"1.2.3", small_ct(b"1.2.4")) == 0xA900
        shown = status(home)
        assert shown["stores"]["refused"] == 1
        assert shown["stored_bytes"] == 0
        assert shown["refusals"] == [{"stage": "store", "reason": "0xA900", "count": 1}]
        assert shown["seconds"]["store"]["count"] == 1


def test_what_would_be_refused_is_counted_apart(home: Path) -> None:
    change = {'mode = "enforce"': 'mode = "observe"'}
    with Node(home, DENY, change=change) as node:
        assert node.echo("-aet", "EVIL1")
        shown = quiet(home)
        assert shown["refusals"] == []
        assert shown["observed"] == [
            {"stage": "association", "reason": "access", "count": 1},
            {"stage": "operation", "reason": "0x0124", "count": 1},
        ]
        text = cli("status", "--home", home).stdout
        assert "WOULD REFUSE AT" in text


# -- the two ways to look agree ------------------------------------------------------------


def test_status_and_scrape_agree(home: Path) -> None:
    page = parts.free_port()
    with Node(home, with_page(page, DENY)) as node:
        assert node.echo()
        assert not node.echo("-aet", "EVIL1")
        assert store(node, CT_SMALL) == 0
        quiet(home)
        shown, text = printed(home), scrape(page)
        for accept in ("application/openmetrics-text; version=1.0.0", "text/plain;version=1.0.0"):
            assert "dicom_node_stores" in scrape(page, accept)
    seen = figures(text)
    for outcome in ("accepted", "refused", "abandoned"):
        want = shown["associations"][outcome]
        assert seen["dicom_node_associations_total", outcome] == want
    for how in ("released", "aborted", "lost"):
        assert seen["dicom_node_associations_ended_total", how] == shown["associations"][how]
    for outcome, count in shown["stores"].items():
        assert seen["dicom_node_stores_total", outcome] == count
    assert seen[("dicom_node_stored_bytes_total",)] == shown["stored_bytes"] > 0
    assert seen[("dicom_node_associations_open",)] == 0
    assert seen[("dicom_node_store_seconds_count",)] == shown["seconds"]["store"]["count"] == 1
    refused = {
        (key[1], key[2]): count
        for key, count in seen.items()
        if key[0] == "dicom_node_refusals_total" and count
    }
    assert refused == {(one["stage"], one["reason"]): one["count"] for one in shown["refusals"]}
    ends = {key[1:]: end for key, end in seen.items() if "certificate_expiry" in key[0]}
    assert len(ends) == len(shown["certificates"]) == 4
    for one in shown["certificates"]:
        left = (ends[one["role"], one["file"], str(one["number"])] - time.time()) / 86_400
        assert one["days_left"] == pytest.approx(left, abs=1.01)
    assert shown["uptime_seconds"] > 0


def test_nobody_is_named(home: Path) -> None:
    """Hostile titles, users, patients and UIDs: none is in what monitoring gets to see."""
    page = parts.free_port()
    settings = with_page(page, DENY + PLAIN_LISTENER.format(identity="supports"))
    words = ('EVIL"}{x=', "SECRET", "Test^Patient", "TEST1", "1.2.3.4", "6.6.6", "127.0.0.1")
    with Node(home, settings) as node:
        for calling in (b'EVIL"}{x="', b"EVIL\\nx 1\n"):
            with Peer(node.connect()) as peer:
                peer.associate(request_pdu(calling, abstract=CT_STORAGE.encode()))
        user = identity_item(2, b'SECRET"user', b"SECRET-passcode")
        with Peer(node.connect()) as peer:
            assert peer.associate(request_pdu(b"CT", user))[0] == ASSOCIATE_RJ
        with Peer(node.connect()) as peer:
            assert peer.associate()[0] == ASSOCIATE_AC
            assert peer.store(b"6.6.6.1", small_ct(b"6.6.6.1")) == 0
            assert peer.store(b"6.6.6.2", small_ct(b"6.6.6.3")) != 0
        quiet(home)
        told = [cli("status", "--home", home, *options).stdout for options in ([], ["--json"])]
        looks = [scrape(page), *told]
        shown = status(home)
    assert shown["associations"]["refused"] >= 2
    assert {"stage": "association", "reason": "identity", "count": 1} in shown["refusals"]
    for text in looks:
        for word in words:
            assert word not in text


# -- what runs out, what waits -------------------------------------------------------------


@pytest.mark.parametrize(("days", "warned"), [(-2, True), (12, True), (45, False)])
def test_a_certificate_that_runs_out_soon_comes_first(home: Path, days: int, warned: bool) -> None:
    key = make_key()
    certificate = Ca("Site").certify("node", key, start=now() - 90 * DAY, end=now() + days * DAY)
    (home / "pki" / "node-ec.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (home / "pki" / "node-ec.key").write_bytes(key_pem(key))
    with Node(home):
        shown = status(home)
        text = cli("status", "--home", home).stdout
    first = shown["certificates"][0]
    assert (first["role"], first["file"]) == ("credential", "pki/node-ec.crt")
    assert first["days_left"] == days - 1, "whole days, and it was made a moment ago"
    left = [one["days_left"] for one in shown["certificates"]]
    assert left == sorted(left)
    assert ("WARNING: pki/node-ec.crt (credential)" in text) == warned
    assert text.count("WARNING") == warned


def test_a_renewed_certificate_and_one_that_has_gone_are_seen(home: Path) -> None:
    with Node(home):
        before = {one["file"]: one["not_after"] for one in status(home)["certificates"]}
        ca = home / "pki" / "ca.crt"
        shutil.copy(home / "pki" / "node.crt", home / "pki" / "new")
        (home / "pki" / "new").replace(ca)
        after = {one["file"]: one["not_after"] for one in status(home)["certificates"]}
        assert after["pki/ca.crt"] == before["pki/node.crt"] != before["pki/ca.crt"]
        ca.unlink()
        assert status(home)["unreadable"] == ["pki/ca.crt"]
        assert "WARNING: pki/ca.crt cannot be read" in cli("status", "--home", home).stdout


def test_a_repository_that_is_away_is_told(home: Path) -> None:
    away, page = parts.free_port(), parts.free_port()
    repository = f'[[audit.repository]]\nname = "site"\nhost = "127.0.0.1"\nport = {away}\n'
    with Node(home, with_page(page) + repository + 'trust = ["pki/ca.crt"]\n') as node:
        assert node.echo()
        shown = quiet(home)
        (one,) = shown["repositories"]
        assert (one["name"], one["connected"], one["sent"]) == ("site", False, 0)
        assert one["waiting"] == len(node.records())
        assert 0 <= one["oldest_waiting_seconds"] <= shown["uptime_seconds"] + 1
        text = cli("status", "--home", home).stdout
        assert "WARNING: audit repository site is not connected" in text
        seen = figures(scrape(page))
        assert seen["dicom_node_audit_waiting", "site"] == one["waiting"]
        assert seen["dicom_node_audit_oldest_waiting_timestamp_seconds", "site"] <= time.time()


# -- the page ------------------------------------------------------------------------------


def test_the_page_answers_one_question_only(home: Path) -> None:
    page = parts.free_port()
    requests = {
        b"GET / HTTP/1.0\r\n\r\n": b" 404 ",
        b"GET /metrics/../x HTTP/1.0\r\n\r\n": b" 404 ",
        b"POST /metrics HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc": b" 501 ",
        b"PUT /metrics HTTP/1.0\r\n\r\n": b" 501 ",
        b"nonsense\r\n\r\n": b" 400 ",
        b"GET /metrics HTTP/1.0\r\n" + b"X: y\r\n" * 4_000: b"",
    }
    with Node(home, with_page(page)):
        for request, want in requests.items():
            with socket.create_connection(("127.0.0.1", page), 20) as sock:
                answer = b""
                with contextlib.suppress(ConnectionError):
                    sock.sendall(request)
                    while piece := sock.recv(65_536):
                        answer += piece
                first = answer.partition(b"\r\n")[0]
                assert want in first if want else not answer
        assert "dicom_node_info" in scrape(page)


def test_silent_and_dripping_readers_of_the_page_are_dropped(home: Path) -> None:
    page = parts.free_port()
    with Node(home, with_page(page)) as node, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(tcp(page)) for _ in range(40)]
        socks[0].sendall(b"GET /metrics HTTP/1.1\r\nX-A: ")
        assert node.echo()
        for sock in socks:
            assert closed_by_peer(sock)
        assert "dicom_node_info" in scrape(page)


# -- starting ------------------------------------------------------------------------------


def refused(home: Path) -> tuple[int, str]:
    done = cli("serve", "--home", home, "--port", "0")
    assert "listening on" not in done.stderr
    (line,) = [s for s in done.stderr.splitlines() if s.startswith("dicom-secure-node: error: ")]
    assert "Traceback" not in done.stderr
    return done.returncode, line


def test_a_page_for_everybody_is_a_wrong_setting(home: Path) -> None:
    configure(home, '[metrics]\nport = 9402\nhost = "0.0.0.0"\n', {})
    code, line = refused(home)
    assert code == 2
    for word in ("metrics.host", "0.0.0.0", "loopback", "proxy"):
        assert word in line


def test_a_page_whose_port_is_taken(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        configure(home, with_page(port), {})
        code, line = refused(home)
    assert code == 3
    assert f"metrics 127.0.0.1:{port}" in line
    assert "in use" in line


def test_without_the_extra_the_error_names_it(home: Path, tmp_path: Path) -> None:
    """A package of that name that cannot be imported stands for one that is not there."""
    gone = tmp_path / "gone" / "prometheus_client"
    gone.mkdir(parents=True)
    code = "raise ModuleNotFoundError('gone', name='prometheus_client')\n"
    (gone / "__init__.py").write_text(code)
    root = str(Path(__file__).parents[2])
    env = {"PYTHONPATH": f"{gone.parent}:{root}"}
    configure(home, with_page(parts.free_port()), {})
    for words in (("serve", "--home", home, "--port", "0"), ("config", "check", "--home", home)):
        done = cli(*words, env=env)
        assert done.returncode == 2
        assert 'pip install "dicom-secure-node[metrics]"' in done.stderr
    configure(home, "", {"[metrics]\nport": "[metrics]\n#port"})
    assert cli("config", "check", "--home", home, env=env).returncode == 0


# -- the verb ------------------------------------------------------------------------------


def test_without_a_node_it_says_how_to_start_one(home: Path) -> None:
    done = cli("status", "--home", home)
    assert done.returncode == 3
    assert "serve --home" in done.stderr
    assert done.stdout == ""


def test_a_killed_node_is_none_and_the_next_one_answers(home: Path) -> None:
    node = Node(home).start()
    pid = status(home)["pid"]
    assert pid == node.pid
    node.kill()
    assert (home / "status.sock").exists()
    assert cli("status", "--home", home).returncode == 3
    with node:
        assert status(home)["pid"] == node.pid != pid
    assert not (home / "status.sock").exists()


def test_a_configuration_from_elsewhere_has_its_socket_beside_it(home: Path) -> None:
    (home / "node.toml").rename(home / "site.toml")
    log = home / "log.txt"
    argv = ["-m", "dicom_secure_node", "serve", "--config", home / "site.toml", "--port", "0"]
    part = parts.Part(
        [sys.executable, *argv],
        log=log,
        ready=lambda: "listening on" in log.read_text(),
    )
    with part:
        assert status(home)["pid"] == part.pid


def test_watch_goes_on_until_told_to_stop(home: Path) -> None:
    with Node(home):
        argv = [sys.executable, "-m", "dicom_secure_node", "status", "--home", str(home)]
        with subprocess.Popen([*argv, "--json", "--watch", "0.1"], stdout=subprocess.PIPE) as watch:
            assert watch.stdout is not None
            lines = [json.loads(watch.stdout.readline()) for _ in range(3)]
            watch.terminate()
            watch.stdout.close()
        assert lines[0]["uptime_seconds"] < lines[2]["uptime_seconds"]
