"""Every message the node sends passes its own strict validator: each place that emits, driven."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

import dicom_secure_node
from dicom_secure_node.archive import Stored
from dicom_secure_node.archive.index import Entry, Unaudited
from dicom_secure_node.archive.keys import Keys
from dicom_secure_node.audit.limiter import AlertLimiter
from dicom_secure_node.audit.messages import AuditMessage, AuditSource
from dicom_secure_node.audit.validate import validate
from dicom_secure_node.errors import (
    AccessRefused,
    AssociationRefused,
    HandshakeRefused,
    IdentityRefused,
    OperationRefused,
    StoreRefused,
)
from dicom_secure_node.identity.claims import Claim, Identity, IdentityType
from dicom_secure_node.node.context import (
    AssociationContext,
    Connection,
    OperationContext,
    StoreContext,
)
from dicom_secure_node.node.plugins.audit import AuditPlugin

PACKAGE = Path(dicom_secure_node.__file__).parent
NOW = datetime(2026, 11, 22, 9, 30, 5, tzinfo=UTC)

# Every place that hands a message on, by module and function. One that is not here fails the test
# below: add it, and have it driven. `NodeAudit.emit` and `AuditTrail` only pass messages on.
PASS_ON = {("secure_node/reporting.py", "emit")}
BY_PLUGIN = {
    ("node/plugins/audit.py", name)
    for name in (
        "_report_left_over",
        "_activity",
        "_emit_alert",
        "on_association_refused",
        "on_operation",
        "on_store",
        "on_store_ended",
        "on_association_closed",
        "_login",
    )
}
# Sent to a repository in place of what was dropped; see
# test_audit_trail.py: test_full_drops_the_oldest_and_says_how_many.
BY_DELIVERY = {("audit/delivery.py", "_skip_what_is_too_much")}
# Who looked at the pages, and who tried to: the collector they report to judges them, see
# tests/system/test_view_entry.py.
BY_PAGES = {
    ("audit_web/reporting.py", name) for name in ("_user", "locked", "looked", "started", "stopped")
}
NO_AUDIT = {("pki/timestamp_token.py", "_check_signature")}  # encodes DER


def places() -> Iterator[tuple[str, str]]:
    """Yield module and function of every call of ``emit`` and of every message made into XML."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            for call in ast.walk(function):
                called = call.func if isinstance(call, ast.Call) else None
                if isinstance(called, ast.Attribute) and called.attr in ("emit", "to_xml"):
                    yield str(path.relative_to(PACKAGE)), function.name


def test_every_place_that_emits_is_driven_here() -> None:
    own = {("audit/trail.py", "emit")}
    assert set(places()) - own - NO_AUDIT == PASS_ON | BY_PLUGIN | BY_DELIVERY | BY_PAGES


class Judge:
    """A trail that takes valid messages only, and tells which function emitted them."""

    def __init__(self) -> None:
        self.full = False
        self.events: Counter[str] = Counter()
        self.outcomes: Counter[int] = Counter()

    def emit(self, message: AuditMessage) -> None:
        for source in (AuditSource("archive.example.org", "Site-A"), AuditSource("")):
            xml = message.to_xml(source, NOW).encode()
            assert validate(xml).problems == (), xml
            assert len(xml) <= 32768
            assert not any("" in one.attrib.values() for one in etree.fromstring(xml).iter())
        self.events[message.event.meaning] += 1
        self.outcomes[message.outcome] += 1


TEXTS = {
    "plain": "ada",
    "nothing": "",
    "blanks": "   ",
    "markup": '<a b="c">&amp;]]>\'',
    "control characters": "a\0b\r\nc\x1b[31m\x9b",
    "lone surrogates": "\ud800\udfff\ufffe",
    "very long": '"' * 10_000,
}
IDENTITIES = {
    "nobody": None,
    "a user": lambda text: Identity(text, IdentityType.PASSCODE, proven=True),
    "a user by word": lambda text: Identity(text, IdentityType.USERNAME, proven=False),
}


@pytest.fixture
def judge() -> Judge:
    return Judge()


def association(text: str, identity: Identity | None) -> AssociationContext:
    """Return an association with `text` wherever a peer has the choice."""
    made = AssociationContext(Connection("main", text or "192.0.2.1", 104), calling_ae=text)
    made.identity = identity
    made.claim = Claim(IdentityType.USERNAME, text.encode("utf-8", "replace"))
    made.refuse_context(text, text)
    return made


def instance(context: AssociationContext, text: str, study: str, outcome: Any) -> StoreContext:
    """Return a C-STORE whose instance the archive has kept."""
    store = StoreContext(context, text or "1.2", "1.2.3.4.5", "1.2.840.10008.1.2")
    keys = Keys("1.2", "1.2.3", study, "1.2", text, text, text, text, text, text)
    store.keep(Stored(Path("x"), outcome, 1, 1, "", keys))
    return store


def drive(plugin: AuditPlugin, text: str, identity: Identity | None) -> None:
    """Call every hook of the plug-in that writes, with `text` wherever it can be."""
    plugin.started()
    plugin.problem(text)
    plugin.locked(text, text)
    plugin.locked("", text or "192.0.2.1")
    context = association(text, identity)
    plugin.on_handshake_failed(context.connection, HandshakeRefused("expired", text))
    for error in (AssociationRefused(text), AccessRefused(text), IdentityRefused(text)):
        plugin.on_association_refused(context, error)
        plugin.on_observed(context, error)
    context.claim = None
    plugin.on_association_refused(context, IdentityRefused(f"{text} again"))
    plugin.on_association_requested(context)
    plugin.on_association_accepted(context)
    for service in ("C-ECHO", "C-GET", "C-MOVE"):
        operation = OperationContext(context, service, "1.2", transfer_syntax="1.2.840.10008.1.2")
        plugin.on_operation(operation)
        plugin.on_operation_refused(operation, OperationRefused(text))
    for study in ("1.2.3", text):
        for kept in ("new", "same", "version"):
            store = instance(context, text, study, kept)
            plugin.on_store(store)
            plugin.on_store_ended(store, None)
            plugin.on_store_ended(store, StoreRefused(f"{text} {kept}", 0xC000))
    plugin.on_association_closed(context, "lost")
    plugin.stopped()


@pytest.mark.parametrize("who", IDENTITIES.values(), ids=IDENTITIES)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_A5_whatever_happens_what_the_node_sends_is_valid(
    text: str, who: Callable[[str], Identity] | None, judge: Judge
) -> None:
    now = [NOW]
    limiter = AlertLimiter(lambda: now[0])
    plugin = AuditPlugin(judge, text or "ARCHIVE", limiter, remark=lambda: text)
    drive(plugin, text, who(text) if who else None)
    now[0] += timedelta(minutes=2)
    drive(plugin, text, who(text) if who else None)  # what was held back comes as a sum
    assert set(judge.events) == {
        "Application Activity",
        "Begin Transferring DICOM Instances",
        "DICOM Instances Accessed",
        "DICOM Instances Transferred",
        "Security Alert",
        "User Authentication",
    }
    assert set(judge.outcomes) == {0, 4, 8}


class Unreported:
    """An archive with instances of two studies that a crash left unreported."""

    def __init__(self, text: str, identity: str) -> None:
        names = {one.name: text for one in fields(Entry)}
        self._entry = Entry(**names | {"identity": identity, "received_at": NOW})  # type: ignore[arg-type]
        self.reported: list[str] = []

    def unaudited(self) -> Iterator[Unaudited]:
        for study in ("1.2.3", self._entry.study):
            yield Unaudited("a1", study, {self._entry.sop_class: 3, "": 1}, self._entry)

    def mark_audited(self, association_id: str) -> None:
        self.reported.append(association_id)


@pytest.mark.parametrize("identity", ["", "ada", "\x1b<"], ids=["nobody", "a user", "an odd one"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_A5_what_a_crash_left_is_reported_validly(text: str, identity: str, judge: Judge) -> None:
    left: Any = Unreported(text, identity)
    AuditPlugin(judge, "ARCHIVE", AlertLimiter(), [left]).started()
    assert judge.events["DICOM Instances Transferred"] == 2
    assert left.reported == ["a1"]


def test_A5_of_a_process_that_died_only_its_own_associations_are_reported(judge: Judge) -> None:
    left: Any = Unreported("x", "ada")
    plugin = AuditPlugin(judge, "ARCHIVE", AlertLimiter(), [left])
    plugin.ended_without_report({"of another process"})
    assert not judge.events
    assert not left.reported
    plugin.ended_without_report({"a1"})
    assert judge.events["DICOM Instances Transferred"] == 2
    assert left.reported == ["a1"]
