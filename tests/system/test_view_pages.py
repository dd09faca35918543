"""The pages over a real repository: what they show of messages that were sent to it."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from base64 import b64decode
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from lxml import html

from dicom_secure_node.audit import messages as m
from dicom_secure_node.audit.messages import AuditMessage, Participant
from dicom_secure_node.spec import audit as codes
from tests.audit.collected import syslog
from tests.audit.samples import octets
from tests.system.collecting import Repository, frame
from tests.system.viewing import Viewing, Visitor

SCRIPT = "<script>alert(1)</script>"
FORMULA = '=HYPERLINK("http://evil.example/","x")'
TURNED = "\u202egnp.exe"
LONG = "L" * 300
NODE = Participant("4711", name="archive")
OLD_PACS = (
    b'<AuditMessage><EventIdentification EventActionCode="E" EventDateTime="2026-11-28T10:00:00" '
    b'EventOutcomeIndicator="0"><EventID code="110100" codeSystemName="DCM"/>'
    b'</EventIdentification><ActiveParticipant UserID="pacs"/></AuditMessage>'
)


def login(user: str, name: str = "", outcome: int = 0, reason: str = "") -> AuditMessage:
    who = Participant(user, requestor=True, name=name, address="192.0.2.9")
    return m.user_authentication(codes.LOGIN, who, NODE, outcome=outcome, reason=reason)


def transfer(patient: str, study: str) -> AuditMessage:
    sender = Participant("77", requestor=True, ae_titles=("CT1",), address="192.0.2.11")
    return m.instances_transferred("C", sender, NODE, [m.study(study)], m.patient(patient, "Doe^J"))


SENT = [
    *(syslog(octets(transfer(f"PAT{n:03}", f"1.2.3.{n}"))) for n in range(60)),
    syslog(octets(login("radiologist", "Radiologist on call"))),
    syslog(octets(login("ward-nurse", outcome=8, reason="wrong passcode"))),
    syslog(octets(m.security_alert(codes.SOFTWARE_CONFIGURATION, "informative", NODE, outcome=0))),
    syslog(octets(login(SCRIPT, FORMULA, 4, f"line\nfeed {TURNED}"))),
    syslog(octets(login(LONG))),
    syslog(octets(login("\"'><img src=x onerror=alert(1)>", "@SUM(1+1)"))),
    syslog(OLD_PACS),
    b"<85>1 - - - - - - =cmd|' /C calc'!A0",
    syslog(b'<!DOCTYPE a [<!ENTITY b "c">]><AuditMessage>&b;</AuditMessage>'),
    b"<85>1 \x00\x1b[2J\xff\xfe",
]


@pytest.fixture(scope="module")
def viewing(template_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewing]:
    home = Path(shutil.copytree(template_home, tmp_path_factory.mktemp("pages") / "home"))
    with Repository(home) as repository, repository.connected() as secure:
        secure.sendall(frame(*SENT))
        repository.indexed(len(SENT))
        with Viewing(home, users={"auditor": "tiger"}) as running:
            yield running


@pytest.fixture(scope="module")
def auditor(viewing: Viewing) -> Visitor:
    return viewing.logged_in("auditor", "tiger")


def numbers(page: str) -> list[int]:
    """Return the numbers of the records in a list."""
    return [int(n) for n in html.fromstring(page).xpath("//tbody/tr/td[1]/a/text()")]


def number_of(auditor: Visitor, query: str) -> int:
    (found,) = numbers(auditor.get(f"/?{query}"))
    return found


def test_the_newest_come_first_and_pages_follow(auditor: Visitor) -> None:
    first = auditor.get("/")
    assert len(numbers(first)) == 50
    (older,) = re.findall(r'rel="next" href="([^"]+)"', first)
    second = auditor.get(unescape(older))
    both = numbers(first) + numbers(second)
    assert len(set(both)) == len(SENT)
    assert both == sorted(both, reverse=True)
    assert "rel=" not in second.partition("<tbody>")[2]
    assert ">Newest<" in second


FILTERS = {
    "event": ("event=110104", 50),
    "outcome": ("outcome=8", 1),
    "any failure": ("outcome=failures", 2),
    "user": ("user=ward-nurse", 1),
    "user, other case": ("user=WARD-NURSE", 1),
    "the beginning of a user": ("user=ward*", 1),
    "a participant's AE title": ("user=CT1&patient=PAT001", 1),
    "patient": ("patient=PAT002", 1),
    "the beginning of a patient": ("patient=PAT00*", 10),
    "study": ("study=1.2.3.7", 1),
    "node": ("node=192.0.2.9&event=110114&outcome=8", 1),
    "not valid": ("valid=no", 4),
    "valid and a failure": ("valid=yes&outcome=8", 1),
    "before anything": ("until=2020-01-01T00:00", 0),
    "since long ago": ("since=2020-01-01T00:00&user=ward-nurse", 1),
    "what SQL would read": ("user=%27+OR+1%3D1+--", 0),
    "a wildcard of SQL": ("user=%25", 0),
    "names of nobody's": ("colour=red&user=ward-nurse", 1),
}


@pytest.mark.parametrize(("query", "count"), FILTERS.values(), ids=FILTERS)
def test_filters(query: str, count: int, auditor: Visitor) -> None:
    assert len(numbers(auditor.get(f"/?{query}"))) == count


SENSELESS = {
    "an outcome": "outcome=5",
    "a time": "since=yesterday",
    "a time beyond the calendar": "since=99999-01-01T00:00",
    "a time at the calendar's end": "until=9999-12-31T23:59",
    "a time at its beginning": "since=0001-01-01T00:00",
    "a time before it, by its zone": "since=0001-01-01T00:00%2B14:00",
    "a verdict": "valid=maybe",
    "a page": "before=x",
    "a negative page": "before=-1",
    "a page beyond SQLite's numbers": "before=9223372036854775807",
    "a long text": f"user={'x' * 257}",
}


@pytest.mark.parametrize("query", SENSELESS.values(), ids=SENSELESS)
def test_a_senseless_filter_is_explained(query: str, auditor: Visitor) -> None:
    answer = auditor.ask(f"/?{query}")
    assert answer.status == 400
    assert "wanted" in answer.text


def test_failures_and_alerts_first(auditor: Visitor) -> None:
    page = auditor.get("/failures")
    assert len(numbers(page)) == 3
    words = [row.text_content() for row in html.fromstring(page).xpath("//tbody/tr")]
    assert "minor failure" in words[0]
    assert "informative" in words[1]  # an alert, though its outcome is 0
    assert "wrong passcode" in words[2]
    assert numbers(auditor.get("/failures?event=110113")) == numbers(page)[1:2]
    assert numbers(auditor.get("/failures?outcome=8")) == numbers(page)[2:]
    assert "2 failures" in auditor.get("/")


def test_what_strangers_wrote_is_text(auditor: Visitor) -> None:
    page = auditor.get("/?event=110114")
    parsed = html.fromstring(page)
    assert parsed.xpath("//script | //img | //*[@onerror] | //*[@style] | //style") == []
    text = parsed.text_content()
    assert SCRIPT in text
    assert "\"'><img src=x onerror=alert(1)>" in text
    assert "\u202e" not in page
    assert "\\u202egnp.exe" in text
    assert "line feed" in text
    assert "L" * 257 not in page


def test_what_is_typed_into_the_form_comes_back_as_text(auditor: Visitor) -> None:
    page = auditor.get("/?user=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&event=%3Cb%3E")
    parsed = html.fromstring(page)
    assert parsed.xpath("//script | //b") == []
    assert parsed.xpath("//input[@name='user']/@value") == ['"><script>alert(1)</script>']


def test_a_message_that_is_not_valid_is_explained(auditor: Visitor) -> None:
    page = html.fromstring(auditor.get(f"/message/{number_of(auditor, 'user=pacs')}"))
    rules = page.xpath("//table[contains(@class, 'rules')]//tr/td[1]/code/text()")
    assert "A.5.2.5.timezone" in rules
    text = page.text_content()
    assert "EventDateTime includes the time zone" in text
    assert "a time without zone" in text
    assert "PS3.15 A.5.2.5" in text
    assert "written without a time zone" in text
    (shown,) = page.xpath("//pre/text()")
    assert '\n  <EventIdentification EventActionCode="E"' in shown
    assert "ct1.example.org" in text  # of the syslog header


def test_a_valid_message(auditor: Visitor) -> None:
    page = auditor.get(f"/message/{number_of(auditor, 'patient=PAT007')}")
    text = html.fromstring(page).text_content()
    for words in ("PAT007", "Doe^J", "1.2.3.7", "CT1", "192.0.2.11", "Valid: schema", "over TLS"):
        assert words in text


def test_messages_that_are_none(auditor: Visitor) -> None:
    pages = []
    for found in numbers(auditor.get("/?valid=no")):
        pages.append(page := auditor.get(f"/message/{found}"))
        raw = auditor.ask(f"/message/{found}/raw")
        assert raw.octets in SENT
        assert raw.headers["Content-Disposition"].startswith("attachment")
        assert "\x1b" not in page
        assert "\x00" not in page
    # Declared entities are shown as they were written, and are nothing else.
    assert [page for page in pages if "&lt;!DOCTYPE a [&lt;!ENTITY b " in page]


@pytest.mark.parametrize("number", ["0", "99999", "4611686018427387904"])
def test_a_record_that_is_not_there(number: str, auditor: Visitor) -> None:
    assert auditor.ask(f"/message/{number}").status == 404


@pytest.mark.parametrize("number", ["x", "-1", "9223372036854775807", "%2e%2e", "1%00"])
def test_what_is_no_number(number: str, auditor: Visitor) -> None:
    assert auditor.ask(f"/message/{number}").status == 400


def test_counts_as_a_plot(auditor: Visitor) -> None:
    page = html.fromstring(auditor.get("/counts?range=hour"))
    (plot,) = page.xpath("//*[local-name()='svg']")
    assert plot.get("aria-label").startswith(f"{len(SENT)} messages, 2 of them failures")
    assert len(plot.xpath(".//*[local-name()='rect'][@class='all']")) >= 1
    assert len(plot.xpath(".//*[local-name()='rect'][@class='failed']")) >= 1
    assert plot.xpath(".//*[local-name()='title']/text()")[0].count("UTC") == 1
    numbers_of = {
        row[0].text_content().strip(): row[1].text_content()
        for row in page.xpath("//h2[text()='By event']/following-sibling::table[1]/tbody/tr")
    }
    assert numbers_of["DICOM Instances Transferred"] == "60"
    for link in page.xpath("//a[starts-with(@href, '/?')]/@href"):
        auditor.get(link)


@pytest.mark.parametrize(
    "query",
    [
        "range=week&outcome=8",
        "range=year",
        "since=1970-01-01T00:00",
        "until=2999-12-31T23:59&since=1970-01-01",
    ],
)
def test_counts_of_other_times(query: str, auditor: Visitor) -> None:
    assert 'class="all"' in auditor.get(f"/counts?{query}")


@pytest.mark.parametrize("query", ["range=ever", "since=2026-01-02T00:00&until=2026-01-01T00:00"])
def test_counts_of_no_time(query: str, auditor: Visitor) -> None:
    assert auditor.ask(f"/counts?{query}").status == 400


def test_csv(auditor: Visitor) -> None:
    answer = auditor.ask("/export/messages.csv")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="audit-messages.csv"'
    text = answer.octets.decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == len(SENT)
    assert all(len(line) == len(rows[0]) for line in csv.reader(io.StringIO(text, newline="")))
    names = [row["user_names"] for row in rows]
    assert any(name.startswith("'=HYPERLINK(") for name in names)
    assert any(name.startswith("'@SUM(") for name in names)
    assert [row["text"] for row in rows if "gnp" in row["text"]] == ["line feed \\u202egnp.exe"]
    assert not any(cell[:1] in ("=", "+", "-", "@", "\t") for row in rows for cell in row.values())
    assert {row["patients"] for row in rows} >= {f"PAT{n:03}" for n in range(60)}


def test_ndjson_has_every_octet(auditor: Visitor) -> None:
    answer = auditor.ask("/export/messages.ndjson")
    assert answer.octets.isascii()
    found = [json.loads(line) for line in answer.octets.splitlines()]
    assert [b64decode(one["raw"]) for one in reversed(found)] == SENT
    assert [one["outcome"] for one in found].count(8) == 1


def test_an_export_has_what_the_list_had(auditor: Visitor) -> None:
    lines = auditor.ask("/export/messages.ndjson?patient=PAT00*").octets.splitlines()
    assert len(lines) == 10
    assert len(auditor.ask("/export/failures.ndjson").octets.splitlines()) == 3
    assert auditor.ask("/export/messages.ndjson?patient=nobody").octets == b""


@pytest.mark.parametrize("name", ["messages.xml", "etc.csv", "..%2fmessages.csv"])
def test_an_export_that_is_none(name: str, auditor: Visitor) -> None:
    assert auditor.ask(f"/export/{name}").status == 404
