"""The status socket: whoever reads badly, or was killed, stands in nobody's way."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_secure_node.errors import ServiceUnavailable
from dicom_secure_node.secure_node.status_socket import NAME, StatusSocket, ask


@contextlib.contextmanager
def listening(folder: Path, answer: object = "fine") -> Iterator[StatusSocket]:
    def tell() -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    opened = StatusSocket(folder, tell)
    try:
        yield opened
    finally:
        opened.close()


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def connect(folder: Path) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.connect(str(folder / NAME))
    return peer


def test_each_asks_and_gets_an_answer(tmp_path: Path) -> None:
    with listening(tmp_path, {"a": [1, 2]}):
        assert ask(tmp_path) == {"a": [1, 2]}
        assert ask(tmp_path) == {"a": [1, 2]}


def test_nobody_else_may_open_it_and_it_is_gone_at_the_end(tmp_path: Path) -> None:
    with listening(tmp_path):
        mode = (tmp_path / NAME).stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        assert names_in(tmp_path) == [NAME]
    assert names_in(tmp_path) == []


def test_no_node_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="serve --home"):
        ask(tmp_path)
    with pytest.raises(ServiceUnavailable, match="no node runs here"):
        ask(tmp_path / "nowhere")


def test_what_a_killed_node_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as killed:
        killed.bind(str(tmp_path / NAME))  # never listens, as one whose process has gone
        with pytest.raises(ServiceUnavailable, match="no node runs here"):
            ask(tmp_path)
        with listening(tmp_path):
            assert ask(tmp_path) == "fine"


def test_a_node_that_answers_is_not_replaced(tmp_path: Path) -> None:
    with listening(tmp_path, "the first"):
        with pytest.raises(ServiceUnavailable, match="another node"):
            StatusSocket(tmp_path, lambda: "the second")
        assert ask(tmp_path) == "the first"


def test_the_socket_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    with listening(tmp_path):
        (tmp_path / NAME).unlink()
        (tmp_path / NAME).write_text("somebody else's")
    assert (tmp_path / NAME).read_text() == "somebody else's"


def test_a_path_too_long_for_an_address(tmp_path: Path) -> None:
    folder = tmp_path
    while len(os.fsencode(folder / NAME)) <= 220:
        folder = folder / ("d" * 40)
        folder.mkdir()
    with listening(folder):
        assert ask(folder) == "fine"
        assert names_in(folder) == [NAME]
    assert names_in(folder) == []


def test_readers_that_do_not_read_stop_nobody(tmp_path: Path) -> None:
    large = "x" * (4 << 20)  # far more than the socket takes unread
    with listening(tmp_path, large), contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(connect(tmp_path))
        assert ask(tmp_path) == large


def test_readers_that_leave_at_once_stop_nobody(tmp_path: Path) -> None:
    with listening(tmp_path, "y" * (1 << 20)):
        for _ in range(20):
            connect(tmp_path).close()
        assert ask(tmp_path) == "y" * (1 << 20)


def test_an_answer_that_fails_tells_no_secret_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with listening(tmp_path, RuntimeError("Müller^Maja")):
        for _ in range(2):
            with pytest.raises(ServiceUnavailable, match="broke off"):
                ask(tmp_path)
    assert "RuntimeError" in caplog.text
    assert "Müller" not in caplog.text


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="No such file"):
        StatusSocket(tmp_path / "gone", lambda: "")
