"""Errors are the same on the other side of a process boundary."""

from __future__ import annotations

import pickle

import pytest

from dicom_secure_node import errors

MADE = {
    "ConfigurationError": errors.ConfigurationError("found 1, wanted 2", "node.toml: port"),
    "MissingExtra": errors.MissingExtra("a progress bar", "progress"),
    "HandshakeRefused": errors.HandshakeRefused("expired", "yesterday"),
    "IdentityRefused": errors.IdentityRefused("no passcode"),
    "AssociationRefused": errors.AssociationRefused("full", result=2, source=3, diagnostic=2),
    "StoreRefused": errors.StoreRefused("no", 0xC001),
    "InvalidDataSet": errors.InvalidDataSet("a", "b", "(0008,0018)", "PS3.5 7.1"),
    "PeerRefused": errors.PeerRefused("0xA700"),
    "ServiceUnavailable": errors.ServiceUnavailable("disk", "full"),
}


@pytest.mark.parametrize("error", MADE.values(), ids=MADE)
def test_an_error_survives_the_way_from_another_process(error: errors.SecureNodeError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 (made in the line itself)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__
