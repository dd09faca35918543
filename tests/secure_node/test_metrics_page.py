"""The page of metrics goes on, whatever became of a reader before."""

from __future__ import annotations

import socket
from contextlib import closing
from urllib.request import urlopen

from dicom_secure_node.node.metrics import Metrics
from dicom_secure_node.secure_node.prometheus import MetricsServer
from tests.parts import no_more_threads


def test_readers_without_room_for_a_thread_take_no_place() -> None:
    with closing(MetricsServer("127.0.0.1", 0, Metrics().snapshot)) as page:
        address = page.server_address[:2]
        with no_more_threads():
            for _ in range(4):
                with socket.create_connection(address, timeout=20) as reader:
                    assert not reader.recv(1)
        with urlopen(f"http://127.0.0.1:{address[1]}/metrics", timeout=20) as answer:
            assert b"dicom_node_associations_total" in answer.read()
