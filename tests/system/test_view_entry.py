"""Who gets in, what a browser is told, and what is reported: over TLS, as anybody could ask."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_secure_node.audit.collecting.records import Filter
from dicom_secure_node.audit.collecting.store import RecordStore
from tests import parts
from tests.audit.collected import every_message, fill, log_files
from tests.system.collecting import Repository, memory_of
from tests.system.running import COMMAND
from tests.system.viewing import Viewing

USERS = {"auditor": "tiger", "<b>boss</b>": "lion", "leaver": "zebra", "changer": "gnu"}
LOG_USED, AUTHENTICATION, ALERT = "110101", "110114", "110113"
PAGES = (
    "/",
    "/failures",
    "/counts",
    "/message/2",
    "/message/2/raw",
    "/export/messages.csv",
    "/export/failures.ndjson",
)


@pytest.fixture(scope="module")
def view_home(template_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = Path(shutil.copytree(template_home, tmp_path_factory.mktemp("entry") / "home"))
    fill(home / "collected", every_message())
    return home


@pytest.fixture(scope="module")
def viewing(view_home: Path) -> Iterator[Viewing]:
    with Viewing(view_home, users=USERS) as running:
        yield running


@pytest.fixture
def own_home(view_home: Path, tmp_path: Path) -> Path:
    """A home for a test that spoils it."""
    ignored = shutil.ignore_patterns("view-trail", "view-log.txt")
    return Path(shutil.copytree(view_home, tmp_path / "home", ignore=ignored))


# --- Doors ---


@pytest.mark.parametrize("path", PAGES)
def test_nothing_is_shown_without_a_session(path: str, viewing: Viewing) -> None:
    visitor = viewing.visitor()
    answer = visitor.ask(path)
    assert (answer.status, answer.octets) == (303, b"")
    assert answer.headers["Location"].startswith("/login")
    for word in ("x", "../../etc", "A" * 3000, ""):
        assert viewing.visitor().ask(path, Cookie=f"__Host-session={word}").status == 303


def test_a_login_and_a_logout(viewing: Viewing) -> None:
    auditor = viewing.visitor()
    answer = auditor.log_in("auditor", "tiger", "/failures?outcome=8")
    assert (answer.status, answer.headers["Location"]) == (303, "/failures?outcome=8")
    attributes = {word.strip().lower() for word in answer.cookies["__Host-session"].split(";")[1:]}
    assert attributes == {"httponly", "secure", "path=/", "samesite=strict"}
    word = auditor.cookies["__Host-session"]
    assert len(word) >= 43
    token = auditor.ask("/").token
    assert auditor.ask("/login").headers["Location"] == "/"
    assert auditor.ask("/logout").status == 405
    assert auditor.ask("/logout", form={"token": "x"}).status == 403
    assert auditor.ask("/logout", form={}).status == 403
    assert auditor.ask("/").status == 200
    assert auditor.ask("/logout", form={"token": token}).headers["Location"] == "/login"
    assert viewing.visitor().ask("/", Cookie=f"__Host-session={word}").status == 303
    kinds = [said.types[0].meaning for said in viewing.trail(AUTHENTICATION, "auditor")]
    assert kinds[-2:] == ["Login", "Logout"]


def test_each_login_has_a_session_of_its_own(viewing: Viewing) -> None:
    visitor = viewing.visitor()
    visitor.cookies["__Host-session"] = "chosen-by-somebody-else"
    visitor.log_in("auditor", "tiger")
    first = visitor.cookies["__Host-session"]
    assert first != "chosen-by-somebody-else"
    visitor.cookies.pop("__Host-session")
    visitor.log_in("auditor", "tiger")
    assert visitor.cookies["__Host-session"] != first


@pytest.mark.parametrize(
    ("user", "passcode"),
    [("auditor", "wrong"), ("nobody", "tiger"), ("auditor2\r\nSet-Cookie: a=b", "x"), ("", "")],
    ids=["wrong passcode", "unknown user", "control characters", "nothing"],
)
def test_a_refused_login_says_the_same(user: str, passcode: str, viewing: Viewing) -> None:
    visitor = viewing.visitor()
    answer = visitor.log_in(user, passcode)
    assert answer.status == 403
    assert "Name or passcode is wrong" in answer.text
    assert "__Host-session" not in visitor.cookies
    last = viewing.trail(AUTHENTICATION)[-1]
    assert last.outcome == 8
    assert last.text
    assert last.users[0].address == "127.0.0.1"


FORGED: dict[str, dict[str, str]] = {
    "a form of another site": {"Origin": "https://evil.example"},
    "a form without a site": {"Origin": "null"},
    "a form of another site, by the browser's word": {"Sec_Fetch_Site": "cross-site"},
    "a form of another port": {"Origin": "https://localhost:1"},
    "a form without TLS": {"Origin": "http://localhost"},
    "another token": {"Cookie": "__Host-form=guessed"},
    "no token": {"Cookie": "a=b"},
}


@pytest.mark.parametrize("headers", FORGED.values(), ids=FORGED)
def test_a_forged_login_is_refused(headers: dict[str, str], viewing: Viewing) -> None:
    visitor = viewing.visitor()
    answer = visitor.log_in("auditor", "tiger", **headers)
    assert answer.status == 403
    assert "__Host-session" not in visitor.cookies


NOT_OURS = (
    "https://evil.example/",
    "//evil.example/",
    "/\\evil.example",
    "/login",
    "/logout",
    "javascript:alert(1)",
    "/counts\r\nLocation: https://evil.example/",
    "/@evil.example",
    "/message/1/../../x",
    "",
)


@pytest.mark.parametrize("target", NOT_OURS)
def test_nobody_is_sent_elsewhere(target: str, viewing: Viewing) -> None:
    answer = viewing.visitor().log_in("auditor", "tiger", target)
    assert (answer.status, answer.headers["Location"]) == (303, "/")


STRANGE_FORMS = {
    "too long": {"body": b"a=" + b"x" * 9000},
    "not UTF-8": {"body": b"user=%ff"},
    "not ASCII": {"body": b"user=\xff"},
    "too many fields": {"body": b"&".join(b"a=b" for _ in range(40))},
    "another type": {"body": b"{}", "type": "application/json"},
}


@pytest.mark.parametrize("case", STRANGE_FORMS.values(), ids=STRANGE_FORMS)
def test_a_strange_form(case: dict[str, object], viewing: Viewing) -> None:
    kind = case.get("type", "application/x-www-form-urlencoded")
    body = bytes(case["body"])  # type: ignore[call-overload]
    head = f"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    assert knocked(viewing, head.encode() + body).startswith(b"HTTP/1.1 400")


def knocked(viewing: Viewing, octets: bytes) -> bytes:
    context = ssl.create_default_context(cafile=str(viewing.home / "pki" / "ca.crt"))
    with (
        socket.create_connection(("127.0.0.1", viewing.port), 30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(octets)
        found = b""
        while piece := secure.recv(65536):
            found += piece
        return found


def test_a_user_who_is_removed_or_has_a_new_passcode_is_out(viewing: Viewing) -> None:
    leaver, changer = viewing.logged_in("leaver", "zebra"), viewing.logged_in("changer", "gnu")
    assert leaver.ask("/").status == changer.ask("/").status == 200
    viewing.user("remove", "leaver")
    viewing.user("add", "changer", stdin="okapi\n")
    assert leaver.ask("/").status == changer.ask("/").status == 303
    assert viewing.visitor().log_in("leaver", "zebra").status == 403
    assert viewing.logged_in("changer", "okapi").ask("/").status == 200


def test_a_session_that_is_not_used_ends(own_home: Path) -> None:
    with Viewing(own_home, "--idle-minutes", "0.0000001") as running:
        assert running.logged_in("auditor", "tiger").ask("/").status == 303


def test_guessing_locks_user_and_address(own_home: Path) -> None:
    with Viewing(own_home) as running:
        for _ in range(5):
            assert running.visitor().log_in("auditor", "guess").status == 403
        for _ in range(20):
            assert running.visitor().log_in("auditor", "tiger").status == 403
        assert running.visitor().log_in("<b>boss</b>", "lion").status == 303
        (alert,) = running.trail(ALERT)
        assert "locked after too many failed logins" in alert.text
        refused = [said.text for said in running.trail(AUTHENTICATION, "auditor")]
        assert sum("wrong passcode" in text for text in refused) == 5
        # Once locked, attempts are counted and not written one by one.
        written = sum("locked after" in text for text in refused)
        assert 1 <= written < 20
        assert "tiger" not in running.log
    sums = re.findall(r"(\d+) more attempts", " ".join(running.xml()))
    assert written + sum(map(int, sums)) == 20


# --- Every answer ---


@pytest.mark.parametrize(
    "path", ["/", "/login", "/style.css", "/nowhere", "/login?next=//x", "/%00"]
)
def test_headers_of_every_answer(path: str, viewing: Viewing) -> None:
    answer = viewing.visitor().ask(path)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'self';")
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Server"] is None


HOSTS = {
    "another name": "evil.example",
    "ours as a part of another": "localhost.evil.example",
    "a port that is none": "localhost:x",
    "nothing": "",
    "a path": "localhost/evil",
    "a user": "localhost@evil.example",
}


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_another_host_is_refused(host: str, viewing: Viewing) -> None:
    answer = viewing.visitor().ask("/login", Host=host)
    assert answer.status == 421
    assert "form" not in answer.text
    assert answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8443", "[::1]:8443"])
def test_our_own_names(host: str, viewing: Viewing) -> None:
    assert viewing.visitor().ask("/login", Host=host).status == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "POST"])
def test_nothing_changes_the_log(method: str, viewing: Viewing) -> None:
    auditor = viewing.logged_in("auditor", "tiger")
    before = [path.read_bytes() for path in log_files(viewing.home / "collected")]
    for path in PAGES:
        assert auditor.ask(path, method).status == 405
    assert [path.read_bytes() for path in log_files(viewing.home / "collected")] == before


def test_what_is_not_http_or_too_long_ends(viewing: Viewing) -> None:
    assert knocked(viewing, b"\x00\x01\x02\r\n\r\n").startswith(b"HTTP/1.1 400")
    head = b"GET /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nA: "
    assert b" 200 " not in knocked(viewing, head + b"x" * 40_000 + b"\r\n\r\n")
    assert viewing.visitor().ask(f"/login?a={'x' * 5000}").status == 414


def test_only_tls_and_no_old_one(viewing: Viewing) -> None:
    with socket.create_connection(("127.0.0.1", viewing.port), 30) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not plain.recv(4096).startswith(b"HTTP")
    found = parts.run(["sslscan", "--no-colour", f"127.0.0.1:{viewing.port}"]).stdout
    enabled = re.findall(r"^(SSLv\d|TLSv1\.\d)\s+enabled", found, re.MULTILINE)
    assert enabled == ["TLSv1.2", "TLSv1.3"]
    assert not re.search(r"CBC|RC4|3DES|NULL", found)


# --- Reports ---


def test_every_look_is_reported(viewing: Viewing) -> None:
    boss = viewing.logged_in("<b>boss</b>", "lion")
    before = len(viewing.trail(LOG_USED))
    for path in PAGES:
        assert boss.ask(path).status == 200
    assert boss.ask("/message/9999").status == 404
    looks = viewing.trail(LOG_USED)[before:]
    assert [look.outcome for look in looks] == [0] * len(PAGES) + [8]
    assert {look.users[0].user_id for look in looks} == {"<b>boss</b>"}
    assert {look.users[0].address for look in looks} == {"127.0.0.1"}
    xml = [one for one in viewing.xml() if "Audit Log Used" in one][before:]
    for path, one in zip(PAGES, xml, strict=False):
        assert f'ParticipantObjectID="https://localhost:{viewing.port}{path}"' in one


def test_the_user_s_name_is_text(viewing: Viewing) -> None:
    page = viewing.logged_in("<b>boss</b>", "lion").get("/")
    assert "<span>&lt;b&gt;boss&lt;/b&gt;</span>" in page


def test_what_cannot_be_shown_is_reported_as_well(own_home: Path) -> None:
    with Viewing(own_home) as running:
        auditor = running.logged_in("auditor", "tiger")
        for path in (own_home / "collected").glob("index.sqlite*"):
            path.unlink()
        answer = auditor.ask("/")
        assert answer.status == 503
        assert str(own_home) not in answer.text
        assert auditor.ask("/export/messages.csv").status == 503
        assert [look.outcome for look in running.trail(LOG_USED)] == [8, 8]


def test_looks_reach_the_repository_itself(template_home: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(template_home, tmp_path / "home"))
    with Repository(home) as repository:
        to = f"127.0.0.1:{repository.port}"
        with Viewing(home, "--report-to", to, users={"auditor": "tiger"}) as running:
            running.logged_in("auditor", "tiger").get("/?patient=PAT1")
        repository.indexed(4)
        with RecordStore(repository.folder) as store:
            (used,) = store.query(Filter(event=LOG_USED, user="auditor"))
            assert used.valid
            assert b"?patient=PAT1" in used.raw
            assert list(store.query(Filter(event=AUTHENTICATION, user="auditor", outcome=0)))


def test_a_long_export_takes_little_memory(own_home: Path) -> None:
    shutil.rmtree(own_home / "collected")
    big = b"<85>1 - - - - - - " + b"x" * 200_000
    fill(own_home / "collected", [big] * 300, segment_bytes=2**24)
    with Viewing(own_home) as running:
        auditor = running.logged_in("auditor", "tiger")
        auditor.ask("/export/messages.csv")
        before = memory_of(running.pid)
        assert len(auditor.ask("/export/messages.ndjson").octets) > 60_000_000
        assert memory_of(running.pid) - before < 30_000_000
        # Who hangs up in the middle leaves nothing behind that would keep others from exporting.
        for _ in range(4):
            hung_up(running, auditor.cookies)
        parts.wait_until(
            lambda: auditor.ask("/export/messages.csv").status == 200, "an export afterwards"
        )


def hung_up(running: Viewing, cookies: dict[str, str]) -> None:
    context = ssl.create_default_context(cafile=str(running.home / "pki" / "ca.crt"))
    cookie = f"__Host-session={cookies['__Host-session']}"
    head = f"GET /export/messages.ndjson HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", running.port), 30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(head.encode())
        assert secure.recv(1000)


# --- The command ---


def test_a_busy_port(viewing: Viewing) -> None:
    argv = [*COMMAND, "audit", "view", "--home", str(viewing.home)]
    done = parts.run([*argv, "--port", str(viewing.port), "--trail", viewing.home / "other"])
    assert done.returncode == 3
    assert f"listener 127.0.0.1:{viewing.port}" in done.stderr


def test_what_is_missing_is_named(view_home: Path, tmp_path: Path) -> None:
    def view(*words: object) -> str:
        done = parts.run([*COMMAND, "audit", "view", *map(str, words)])
        assert done.returncode == 2
        return done.stderr

    assert "audit collect makes it" in view("--home", tmp_path)
    bare = tmp_path / "bare"
    (bare / "collected").mkdir(parents=True)
    assert "user add --home" in view("--home", bare)
    (bare / "viewers.toml").write_text("")
    shutil.copytree(view_home / "pki", bare / "pki")
    assert "there are no users" in view("--home", bare)
    assert "wanted HOST:PORT" in view("--home", view_home, "--report-to", "here")
    assert "wanted 0 to 65535" in view("--home", view_home, "--port", 70000)
    (tmp_path / "starlette.py").write_text("raise ModuleNotFoundError(name='starlette')")
    done = parts.run(
        [*COMMAND, "audit", "view", "--home", view_home],
        env={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"},
    )
    assert (done.returncode, "dicom-secure-node[audit-web]" in done.stderr) == (2, True)


def test_help_has_an_example() -> None:
    done = parts.run([*COMMAND, "audit", "view", "--help"], check=True)
    assert "dicom-secure-node audit view --home audit-repository" in done.stdout
