"""C-STORE-RQs laid out in one buffer."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from dicom_secure_node.node.outgoing import OutgoingStore, PDURun
from dicom_secure_node.node.store_codec import encode_store_request

COMMAND = encode_store_request(7, "1.2.840.10008.5.1.4.1.1.2", "1.2.3")
OFFSET = 11


def pdvs(stream: bytes) -> list[tuple[int, int, bytes]]:
    """Return context ID, control header and fragment of P-DATA-TF PDUs of one PDV each."""
    found = []
    while stream:
        kind, length, item, context_id, control = struct.unpack_from(">BxLLBB", stream)
        assert (kind, length) == (4, item + 4)
        found.append((context_id, control, stream[12 : 6 + length]))
        stream = stream[6 + length :]
    return found


def sent(path: Path, run: PDURun, context_id: int = 3) -> list[tuple[int, int, bytes]]:
    stream = b""
    with OutgoingStore(COMMAND, context_id, path, OFFSET) as store:
        while not store.at_end:
            stream += bytes(store.next(run))
    return pdvs(stream)


@pytest.mark.parametrize("maximum", [200, 4096, 16_382, 131_072, 262_144, 1 << 20])
@pytest.mark.parametrize("fragments", [0, 1, 2, 300])
@pytest.mark.parametrize("more", [-2, 0, 2])
def test_E2_every_byte_is_in_a_pdu_the_peer_takes(
    tmp_path: Path, maximum: int, fragments: int, more: int
) -> None:
    size = min(max(0, fragments * (maximum - 6) + more), 3_000_000)
    path, data = tmp_path / "a.dcm", bytes(range(251)) * (size // 251 + 1)
    path.write_bytes(bytes(OFFSET) + data[:size])
    (context_id, control, command), *rest = sent(path, PDURun(maximum))
    assert (context_id, control, command) == (3, 3, COMMAND)
    assert b"".join(fragment for _, _, fragment in rest) == data[:size]
    assert [control for _, control, _ in rest] == [0] * (len(rest) - 1) + [2]
    assert all(len(fragment) + 6 <= maximum for _, _, fragment in rest)
    assert len(rest) == max(1, -(-size // (maximum - 6))), "PDUs are full"


def test_one_buffer_serves_one_file_after_the_other(tmp_path: Path) -> None:
    run = PDURun(4096)
    for number, size in enumerate((100_000, 10, 900_000, 0)):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(bytes(OFFSET) + bytes([number]) * size)
        context_id = 2 * number + 1
        got = sent(path, run, context_id)
        assert {one for one, _, _ in got} == {context_id}
        assert b"".join(fragment for _, _, fragment in got[1:]) == bytes([number]) * size


def test_a_command_longer_than_a_pdu_is_not_taken() -> None:
    assert PDURun(len(COMMAND) + 6).takes(COMMAND)
    assert not PDURun(len(COMMAND) + 5).takes(COMMAND)


def test_a_file_that_becomes_shorter_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(bytes(1_000_000))
    run = PDURun(16_384)
    with OutgoingStore(COMMAND, 1, path, OFFSET) as store:
        store.next(run)
        os.truncate(path, 300_000)
        with pytest.raises(OSError, match="became shorter"):
            store.next(run)
    with pytest.raises(OSError, match="nobody waits"):
        store.next(run)


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        OutgoingStore(COMMAND, 1, tmp_path / "none", 0)
    with OutgoingStore(COMMAND, 1, tmp_path, 0) as store, pytest.raises(IsADirectoryError):
        store.next(PDURun(4096))
