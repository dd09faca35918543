"""A supervisor goes on accepting, whatever becomes of one connection."""

from __future__ import annotations

import functools
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_secure_node import config
from dicom_secure_node.commands.home import make_home
from dicom_secure_node.commands.serve import _launch
from dicom_secure_node.secure_node.supervisor import Supervisor
from tests.parts import no_more_threads


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def test_a_refusal_without_room_for_a_thread_ends_one_connection_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_home(tmp_path, 0)
    tables = config.load(tmp_path / "node.toml")
    tables = replace(
        tables,
        node=replace(tables.node, workers=2),
        limits=replace(tables.limits, connections_per_address=1),
    )
    supervisor = Supervisor(tables, functools.partial(_launch, False))
    try:
        port = supervisor.listen()[0]
        with connected(port):
            with no_more_threads(), connected(port) as refused:
                assert not refused.recv(1)
            with connected(port) as refused:
                assert not refused.recv(1), "it is still accepting"
    finally:
        supervisor.stop()
    assert "a connection was dropped" in caplog.text
