"""Figures: exact, from many threads, in fixed words, and mergeable."""

from __future__ import annotations

import json
import pickle
import threading
from typing import Any

import pytest

from dicom_secure_node.errors import (
    AccessRefused,
    AssociationRefused,
    HandshakeRefused,
    IdentityRefused,
    LimitReached,
    OperationRefused,
    Refused,
    SignatureRejected,
    StoreRefused,
)
from dicom_secure_node.node import measures
from dicom_secure_node.node.context import OperationContext
from dicom_secure_node.node.metrics import Metrics, Snapshot, merge, quantile
from dicom_secure_node.node.plugin import Plugin
from dicom_secure_node.node.plugins.metrics import MetricsPlugin
from dicom_secure_node.secure_node.measuring import OfWorkers
from tests.loopback import application_entity, associate, port_of, serving
from tests.parts import wait_until


def values(snapshot: Snapshot, family: measures.Family) -> dict[tuple[str, ...], Any]:
    """Return what is not zero, by the values of the labels."""
    samples = snapshot[family.name]
    return {tuple(s["labels"].values()): s["value"] for s in samples if s["value"]}


def histogram(bounds: list[float], buckets: list[int]) -> dict[str, Any]:
    return {"labels": {}, "bounds": bounds, "buckets": buckets, "sum": 0.0}


# -- counting ------------------------------------------------------------------------------


def test_every_series_of_a_fixed_set_is_there_from_the_start_at_zero() -> None:
    taken = Metrics().snapshot()
    refusals = taken[measures.REFUSALS.name]
    assert {tuple(s["labels"].values()) for s in refusals} == set(measures.REFUSALS.series)
    assert {s["value"] for s in refusals} == {0}
    for kind in HandshakeRefused.KINDS:
        assert ("handshake", kind) in measures.REFUSALS.series


def test_many_threads_lose_no_count() -> None:
    metrics = Metrics()

    def count() -> None:
        for _ in range(2_000):
            metrics.add(measures.STORES, "kept")
            metrics.observe(measures.STORE_SECONDS, 0.002)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = metrics.snapshot()
    assert values(taken, measures.STORES) == {("kept",): 16_000}
    (sample,) = taken[measures.STORE_SECONDS.name]
    assert sum(sample["buckets"]) == 16_000
    assert sample["sum"] == pytest.approx(32.0)


@pytest.mark.parametrize("word", ["Müller^Maja", "", "accepted\n", "x" * 100_000])
def test_a_word_that_is_none_of_ours_makes_no_series(word: str) -> None:
    metrics = Metrics()
    metrics.add(measures.REFUSALS, "handshake", word)
    metrics.add(measures.ASSOCIATIONS, word)
    metrics.add(measures.REFUSALS, word, word)
    taken = metrics.snapshot()
    assert values(taken, measures.REFUSALS) == {("handshake", "other"): 1}
    assert values(taken, measures.ASSOCIATIONS) == {}
    assert word == "" or word not in json.dumps(taken, ensure_ascii=False)


def test_a_snapshot_is_plain_data_that_does_not_change_later() -> None:
    metrics = Metrics()
    before = metrics.snapshot()
    copied = json.loads(json.dumps(before))
    metrics.add(measures.STORES, "kept")
    metrics.observe(measures.STORE_SECONDS, 0.1)
    assert before == copied
    assert pickle.loads(pickle.dumps(before)) == before  # noqa: S301 - our own bytes


def test_one_figure_that_cannot_be_read_hides_no_other() -> None:
    metrics = Metrics()

    def broken() -> Any:
        yield measures.FREE, ("audit",), 5
        raise OSError("the folder of Müller^Maja is gone")

    metrics.source(broken)
    metrics.source(lambda: [(measures.CONNECTIONS, (), 3)])
    taken = metrics.snapshot()
    assert values(taken, measures.CONNECTIONS) == {(): 3}
    assert values(taken, measures.FREE) == {("audit",): 5}


# -- words ---------------------------------------------------------------------------------

ASSOCIATION = {
    "identity": IdentityRefused("user 'ada' unknown"),
    "access": AccessRefused("CT1 may not"),
    "limit": LimitReached("too many"),
    "congestion": AssociationRefused("spool", result=2, source=3, diagnostic=1),
    "called AE title": AssociationRefused("x", result=1, source=1, diagnostic=7),
    "calling AE title": AssociationRefused("x", result=1, source=1, diagnostic=3),
    "other": AssociationRefused("a reason of a plug-in's own"),
}
STORE = {
    "signature": SignatureRejected("bad"),
    "0xC000": StoreRefused("malformed"),
    "0xA700": StoreRefused("full", status=0xA700),
    "0xA7xx": StoreRefused("full", status=0xA701),
    "0xCxxx": StoreRefused("an application's own", status=0xCAFE),
    "0x0124": OperationRefused("may not"),
    "other": StoreRefused("an application's own", status=0x4711),
}


@pytest.mark.parametrize("word", ASSOCIATION)
def test_an_association_is_refused_in_one_of_our_words(word: str) -> None:
    found = measures.refusal("association", ASSOCIATION[word])
    assert found == ("association", word)
    assert found in measures.REFUSALS.series


@pytest.mark.parametrize("word", STORE)
def test_a_store_is_refused_in_one_of_our_words(word: str) -> None:
    found = measures.refusal("store", STORE[word])
    assert found == ("store", word)
    assert found in measures.REFUSALS.series


def test_every_error_and_status_has_a_series() -> None:
    errors: list[Refused] = [Refused("x"), *ASSOCIATION.values(), *STORE.values()]
    errors += [HandshakeRefused(kind, "") for kind in HandshakeRefused.KINDS]
    for error in errors:
        assert measures.observed(error) in measures.OBSERVED.series
        for stage in ("association", "operation", "store"):
            assert measures.refusal(stage, error) in measures.REFUSALS.series
    for status in range(0x10000):
        assert ("operation", measures.status_word(status)) in measures.REFUSALS.series


# -- several processes ---------------------------------------------------------------------


def test_merge_adds_what_is_counted() -> None:
    one, other = Metrics(), Metrics()
    for metrics, count in ((one, 2), (other, 3)):
        metrics.add(measures.OPEN)
        metrics.add(measures.STORES, "kept", amount=count)
        for _ in range(count):
            metrics.observe(measures.STORE_SECONDS, 0.002)
    taken = merge([one.snapshot(), other.snapshot()])
    assert values(taken, measures.STORES) == {("kept",): 5}
    assert values(taken, measures.OPEN) == {(): 2}
    (sample,) = taken[measures.STORE_SECONDS.name]
    assert sum(sample["buckets"]) == 5
    assert sample["sum"] == pytest.approx(0.01)


def test_merge_does_not_add_what_all_of_them_see() -> None:
    snapshots = []
    for started, free, connected in ((10, 7, 0), (20, 5, 1)):
        metrics = Metrics()
        readings = [
            (measures.STARTED, (), started),
            (measures.FREE, ("audit",), free),
            (measures.CONNECTED, ("arr",), connected),
            (measures.CONNECTIONS, (), 4),
        ]
        metrics.source(lambda readings=readings: readings)  # type: ignore[misc]  # as it is now
        snapshots.append(metrics.snapshot())
    taken = merge(snapshots)
    assert values(taken, measures.STARTED) == {(): 10}
    assert values(taken, measures.FREE) == {("audit",): 5}
    assert values(taken, measures.CONNECTED) == {("arr",): 1}
    assert values(taken, measures.CONNECTIONS) == {(): 8}


def test_merge_of_one_is_itself_and_of_none_is_empty() -> None:
    taken = Metrics().snapshot()
    assert merge([taken]) == taken
    assert merge([]) == {}
    assert merge([taken, {}]) == taken


def _sample_of(family: measures.Family, **changes: Any) -> Snapshot:
    """Return a snapshot of one sample, with something changed in it."""
    return {family.name: [{**Metrics().snapshot()[family.name][0], **changes}]}


NO_SNAPSHOTS: dict[str, Any] = {
    "a number": 5,
    "a list": [1],
    "a figure that is none of ours": {"mine": []},
    "a sample that is none": {measures.OPEN.name: [7]},
    "no value": {measures.OPEN.name: [{"labels": {}}]},
    "a text as value": _sample_of(measures.OPEN, value="many"),
    "a label too many": _sample_of(measures.OPEN, labels={"user": "x"}),
    "a word that is none of ours": _sample_of(measures.STORES, labels={"outcome": "x\ny 1"}),
    "a number as word": {measures.CONNECTED.name: [{"labels": {"repository": 1}, "value": 1}]},
    "a counter with buckets": _sample_of(measures.STORES, buckets=[1], sum=1),
    "a histogram without": {measures.SETUP.name: [{"labels": {}, "value": 1}]},
    "a bucket too few": _sample_of(measures.SETUP, buckets=[1]),
    "other bounds": _sample_of(measures.SETUP, bounds=[1.0]),
}


@pytest.mark.parametrize("case", NO_SNAPSHOTS)
def test_what_a_process_reports_that_is_no_snapshot_is_refused(case: str) -> None:
    """And what it reported before stays: what it leaves can be put in order."""
    figures = OfWorkers()
    good = Metrics().snapshot()
    figures.report(1, good)
    with pytest.raises(ValueError, match="no snapshot"):
        figures.report(1, NO_SNAPSHOTS[case])
    assert merge(figures.asked(lambda _: ())) == good
    figures.ended(1)


def test_merge_leaves_its_snapshots_alone() -> None:
    metrics = Metrics()
    metrics.observe(measures.STORE_SECONDS, 1)
    taken = metrics.snapshot()
    before = json.dumps(taken)
    merge([taken, taken])
    assert json.dumps(taken) == before


# -- quantiles -----------------------------------------------------------------------------

QUANTILES = {
    "nothing was measured": ([1.0, 2.0], [0, 0, 0], 0.5, None),
    "half of one bucket": ([1.0, 2.0], [10, 0, 0], 0.5, 0.5),
    "between two bounds": ([1.0, 2.0, 4.0], [0, 0, 8, 0], 0.25, 2.5),
    "at the edge of a bucket": ([1.0, 2.0], [5, 5, 0], 0.5, 1.0),
    "an empty bucket between": ([1.0, 2.0, 4.0], [5, 0, 5, 0], 0.75, 3.0),
    "all of it": ([1.0, 2.0], [5, 5, 0], 1.0, 2.0),
    "above the last bound": ([1.0, 2.0], [0, 0, 7], 0.99, 2.0),
}


@pytest.mark.parametrize("case", QUANTILES)
def test_quantiles_are_those_of_prometheus(case: str) -> None:
    bounds, buckets, part, want = QUANTILES[case]
    assert quantile(histogram(bounds, buckets), part) == want


def test_a_value_on_a_bound_belongs_below_it() -> None:
    metrics = Metrics()
    metrics.observe(measures.STORE_SECONDS, measures.STORE_SECONDS.bounds[0])
    (sample,) = metrics.snapshot()[measures.STORE_SECONDS.name]
    assert sample["buckets"][0] == 1


# -- the plug-in ---------------------------------------------------------------------------


class Refusing(Plugin):
    """Refuses a title, and C-ECHO."""

    def on_association_requested(self, association: Any) -> None:
        if association.calling_ae == "EVIL":
            raise AccessRefused("no, EVIL")

    def on_operation(self, operation: OperationContext) -> None:
        raise OperationRefused("no echo")


def test_what_happens_on_the_wire_is_counted_once() -> None:
    metrics = Metrics()
    with serving([MetricsPlugin(metrics), Refusing()]) as started:
        port = port_of(started)
        assoc = associate(port)
        assert assoc.send_c_echo().Status == 0x0124
        assert values(metrics.snapshot(), measures.OPEN) == {(): 1}
        assoc.release()
        assert associate(port, calling="EVIL").is_rejected
        assoc = associate(port)
        assoc.abort()
        wait_until(
            lambda: sum(values(metrics.snapshot(), measures.ENDED).values()) == 2, "two ended"
        )
    taken = metrics.snapshot()
    assert values(taken, measures.ASSOCIATIONS) == {("accepted",): 2, ("refused",): 1}
    assert values(taken, measures.ENDED) == {("released",): 1, ("aborted",): 1}
    assert values(taken, measures.OPEN) == {}
    assert values(taken, measures.REQUESTS) == {("C-ECHO",): 1}
    assert values(taken, measures.REFUSALS) == {
        ("association", "access"): 1,
        ("operation", "0x0124"): 1,
    }
    for family in (measures.SETUP, measures.DURATION):
        (sample,) = taken[family.name]
        assert sum(sample["buckets"]) == 2
    assert "EVIL" not in json.dumps(taken)


def test_what_the_application_entity_itself_refuses_has_its_reason() -> None:
    """PS3.8 Table 9-21: 1, 1, 7 called AE title not recognised; 2, 3, 2 local limit exceeded."""
    metrics = Metrics()
    ae = application_entity()
    ae.require_called_aet = True
    ae.maximum_associations = 1
    with serving([MetricsPlugin(metrics)], ae=ae) as started:
        port = port_of(started)
        assert associate(port, ae_title="WRONG").is_rejected
        figures = metrics.snapshot
        wait_until(lambda: values(figures(), measures.ASSOCIATIONS), "the refusal counted")
        wait_until(lambda: not started.associations(), "the end of the one that was refused")
        assoc = associate(port, ae_title="NODE")
        assert assoc.is_established
        assert associate(port, ae_title="NODE").is_rejected
        assoc.release()
        wait_until(lambda: values(figures(), measures.ENDED), "the end counted")
    assert values(metrics.snapshot(), measures.REFUSALS) == {
        ("association", "called AE title"): 1,
        ("association", "limit"): 1,
    }
