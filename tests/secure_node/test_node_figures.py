"""`SecureNode` counts in a program of one's own, too; nothing listens for it there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicom_secure_node import config
from dicom_secure_node.commands.home import make_home
from dicom_secure_node.commands.status_report import summary
from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.secure_node import SecureNode
from tests.loopback import application_entity, port_of
from tests.parts import wait_until


def test_a_program_sees_its_figures(tmp_path: Path) -> None:
    make_home(tmp_path, 0)
    node = SecureNode(tmp_path / "node.toml")
    ae = application_entity()
    ae.add_requested_context("1.2.840.10008.1.1")
    with node:
        server = node.start_server(ae, ("127.0.0.1", 0), block=False)
        assert server is not None
        assoc = node.associate(ae, "127.0.0.1", port_of(server))
        assert assoc.send_c_echo().Status == 0
        assert summary(node.status())["associations"]["open"] == 1
        assoc.release()
        wait_until(lambda: not summary(node.status())["associations"]["open"], "it is released")
        shown = summary(json.loads(json.dumps(node.status())))
        assert shown["associations"]["accepted"] == shown["associations"]["released"] == 1
        assert shown["requests"] == {"C-ECHO": 1}
        assert not (tmp_path / "status.sock").exists()
    assert node.metrics.snapshot()["dicom_node_requests_total"], "also after the stop"


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    homes = [tmp_path / name / "pki" for name in ("a", "b")]
    for pki in homes:
        make_home(pki.parent, 0)
    first, second = (
        config.Listener(
            name=str(number),
            port=0,
            credential=(pki / "node",),
            trust=(pki / "ca.crt", homes[0] / "ca.crt"),
        )
        for number, pki in enumerate(homes)
    )
    audit = config.Audit(path=tmp_path / "audit")
    archive = config.Archive(path=tmp_path / "archive")
    identity = config.Identity(passcode=config.Passcode(homes[0].parent / "users.toml"))
    tables = config.NodeConfig((first, second), identity=identity, audit=audit, archive=archive)
    with SecureNode(tables) as node:
        shown = summary(node.status())["certificates"]
    files = [(one["role"], one["file"]) for one in shown]
    assert len(files) == len(set(files)) == 4, "a file of two listeners is read once"
    assert {str(Path(file).parent) for _, file in files} == {str(pki) for pki in homes}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.5.0.1", "::1"])
def test_a_loopback_address_is_taken(host: str) -> None:
    assert config.Metrics(port=1, host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost", "", "::ffff:10.0.0.1"])
def test_any_other_address_is_not(host: str) -> None:
    with pytest.raises(ConfigurationError, match="loopback"):
        config.Metrics(port=1, host=host)
