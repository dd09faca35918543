"""Listeners of one node share its limits."""

from __future__ import annotations

from dicom_secure_node.node.slots import Slots
from tests.loopback import associate, knock, port_of, request_pdu, serving
from tests.parts import wait_until


def test_two_listeners_count_their_connections_together() -> None:
    slots = Slots(total=10, per_address=2)
    with serving(slots=slots) as one, serving(slots=slots) as other:
        assert len(slots) == 0
        first, second = associate(port_of(one)), associate(port_of(other))
        assert first.is_established
        assert second.is_established
        assert len(slots) == 2
        assert knock(port_of(one), request_pdu()) == b"", "the third from this address"
        first.release()
        second.release()
        wait_until(lambda: len(slots) == 0, "both slots given back")
