"""A configuration file is loaded strictly, and its errors say where and what."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from dicom_secure_node import config
from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.identity.claims import IdentityType
from dicom_secure_node.identity.policy import Demand

LISTENER = "[[listener]]\n"


@pytest.fixture
def loaded(tmp_path: Path):
    """Return a function that loads a text as ``node.toml``."""

    def load(text: str | bytes) -> config.NodeConfig:
        path = tmp_path / "node.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return config.load(path)

    return load


def test_one_listener_is_enough(loaded, tmp_path: Path) -> None:
    found = loaded(LISTENER)
    assert found.listener[0].client_certificate == "require"
    assert found.listener[0].credential == (tmp_path / "pki/node", tmp_path / "pki/node-ec")


def test_relative_paths_and_those_of_defaults_are_relative_to_the_file(loaded, tmp_path) -> None:
    found = loaded(LISTENER + 'trust = ["a.crt", "/b.crt"]\n[archive]\nindex = "i.sqlite"')
    assert found.listener[0].trust == (tmp_path / "a.crt", Path("/b.crt"))
    assert found.archive.index == tmp_path / "i.sqlite"
    assert found.archive.path == tmp_path / "archive"
    assert found.identity.passcode.file == tmp_path / "users.toml"
    assert found.audit.path == tmp_path / "audit"


def test_the_index_may_be_a_url_of_sqlite(loaded, tmp_path: Path) -> None:
    found = loaded(LISTENER + '[archive]\nindex = "sqlite:////var/i.sqlite"')
    assert found.archive.index == Path("/var/i.sqlite")
    found = loaded(LISTENER + '[archive]\nindex = "sqlite:///i.sqlite"')
    assert found.archive.index == tmp_path / "i.sqlite"


def test_a_list_of_one_needs_no_brackets(loaded) -> None:
    found = loaded(LISTENER + '[services]\nstorage = "CTImageStorage"')
    assert found.services.storage == ("CTImageStorage",)


def test_a_whole_number_is_a_number(loaded) -> None:
    found = loaded(LISTENER + "[limits]\nidle_seconds = 5")
    assert found.limits.idle_seconds == 5.0
    assert isinstance(found.limits.idle_seconds, float)


def test_modes_for_single_ae_titles(loaded) -> None:
    found = loaded(LISTENER + '[listener.identity_for]\nCT1 = "required"\n"A B" = "supports"')
    assert found.listener[0].identity_for == {"CT1": "required", "A B": "supports"}


def test_a_mode_for_each_type_of_identity(loaded) -> None:
    table = '{ kerberos = "required", passcode = "supports", saml = "not-supported" }'
    found = loaded(
        f'{LISTENER}identity = {table}\nidentity_types = ["jwt"]\n'
        '[listener.identity_for]\nCT1 = "supports"\nWS1 = { saml = "required" }\nWS2 = {}'
    )
    policy = found.listener[0].identity_policy(found.identity)
    assert policy.default == Demand(
        frozenset({IdentityType.PASSCODE}), frozenset({IdentityType.KERBEROS})
    )
    assert policy.overrides == {
        "CT1": Demand(supported=frozenset({IdentityType.JWT})),
        "WS1": Demand(required=frozenset({IdentityType.SAML})),
        "WS2": Demand(),
    }


def test_a_word_is_for_the_types_of_the_identity_table(loaded) -> None:
    found = loaded(LISTENER + 'identity = "required"\n[identity]\ntypes = "username"')
    policy = found.listener[0].identity_policy(found.identity)
    assert policy.default == Demand(required=frozenset({IdentityType.USERNAME}))


def test_rules_and_bindings_are_those_of_the_identity_unit(loaded) -> None:
    found = loaded(
        LISTENER
        + '[[access.rule]]\neffect = "allow"\ncalling_ae = ["CT*"]\noperation = "C-STORE"\n'
        + '[[certificate.binding]]\ncalling_ae = "CT1"\nsan = "ct1.site"\n'
    )
    assert found.access.rule[0].operation == ("C-STORE",)
    assert found.certificate.binding[0].binding.certificate[0].text == "dns:ct1.site"


WRONG = {
    "a misspelt key": (
        LISTENER + "pot = 1",
        "listener[0].pot: unknown key; did you mean 'port'?",
    ),
    "a misspelt table": ("[audti]", "audti: unknown key; did you mean 'audit'?"),
    "a key of a deep table": (
        LISTENER + "[identity.passcode]\nfiles = 'x'",
        "identity.passcode.files: unknown key; did you mean 'file'?",
    ),
    "a key like no other": (
        LISTENER + "[node]\nxyzzy = 1",
        "node.xyzzy: unknown key; known here: ae_title, plugins, workers",
    ),
    "a key of the second listener": (
        LISTENER * 2 + "prt = 1",
        "listener[1].prt: unknown key; did you mean 'port'?",
    ),
    "no listener": ("", "listener: missing"),
    "an empty list of listeners": ("listener = []", "listener: found [], wanted at least one"),
    "a text for a port": (
        LISTENER + 'port = "11112"',
        "listener[0].port: found a text, wanted a whole number",
    ),
    "true for a port": (
        LISTENER + "port = true",
        "listener[0].port: found true or false, wanted a whole number",
    ),
    "a port too high": (
        LISTENER + "port = 65536",
        "listener[0].port: found 65536, wanted 0 to 65,535",
    ),
    "a number for true": (
        LISTENER + "allow_retired = 1",
        "listener[0].allow_retired: found a whole number, wanted true or false",
    ),
    "a number in a list of texts": (
        LISTENER + 'groups = ["x25519", 3]',
        "listener[0].groups[1]: found a whole number, wanted a text",
    ),
    "a date for a path": (
        LISTENER + "[archive]\npath = 2026-01-01",
        "archive.path: found a date or time, wanted a path",
    ),
    "an empty path": (LISTENER + '[archive]\npath = ""', "archive.path: found '', wanted a path"),
    "a URL for a path": (
        LISTENER + '[archive]\nindex = "postgresql://db"',
        "archive.index: found 'postgresql://db', wanted a path",
    ),
    "a value for a table": ("node = 3\n" + LISTENER, "node: found a whole number, wanted a table"),
    "a value for a mapping": (
        LISTENER + "identity_for = 3",
        "listener[0].identity_for: found a whole number, wanted a table",
    ),
    "a word that is none of the choices": (
        LISTENER + 'client_certificate = "requires"',
        "listener[0].client_certificate: found 'requires', wanted one of 'require', 'verify', "
        "'ignore'; did you mean 'require'?",
    ),
    "a number for a choice": (
        LISTENER + "mode = 1",
        "listener[0].mode: found 1, wanted one of 'enforce', 'observe'",
    ),
    "a wrong mode for an AE title": (
        LISTENER + "identity_for = {CT1 = 'yes'}",
        "listener[0].identity_for.CT1: found 'yes', wanted one of 'not-supported', 'supports', "
        "'required'",
    ),
    "a number for a mode or a table of modes": (
        LISTENER + "identity = 3",
        "listener[0].identity: found 3, wanted one of 'not-supported', 'supports', 'required', "
        "or a table",
    ),
    "a misspelt mode of all types": (
        LISTENER + 'identity = "require"',
        "listener[0].identity: found 'require', wanted one of 'not-supported', 'supports', "
        "'required', or a table; did you mean 'required'?",
    ),
    "a misspelt mode of one type": (
        LISTENER + 'identity = { kerberos = "support" }',
        "listener[0].identity.kerberos: found 'support', wanted one of 'not-supported', "
        "'supports', 'required'; did you mean 'supports'?",
    ),
    "a misspelt type": (
        LISTENER + 'identity = { kerberros = "required" }',
        "listener[0].identity.kerberros: unknown key; did you mean 'kerberos'?",
    ),
    "a misspelt type for an AE title": (
        LISTENER + 'identity_for = { "A B" = { smal = "required" } }',
        "listener[0].identity_for.A B.smal: unknown key; did you mean 'saml'?",
    ),
    "a table by type that goes deeper": (
        LISTENER + "identity = { jwt = { mode = 'required' } }",
        "listener[0].identity.jwt: found {'mode': 'required'}, wanted one of",
    ),
    "required, and no type to require": (
        LISTENER + 'identity = "required"\n[identity]\ntypes = []',
        "identity is required, but no type is taken ([identity] types)",
    ),
    "a mode for what is no AE title": (
        LISTENER + 'identity_for = {"ABCDEFGHIJKLMNOPQ" = "required"}',
        "listener[0].identity_for: found 'ABCDEFGHIJKLMNOPQ', wanted an AE title",
    ),
    "an AE title too long": (
        LISTENER + '[node]\nae_title = "ABCDEFGHIJKLMNOPQ"',
        "node.ae_title: found 'ABCDEFGHIJKLMNOPQ', wanted an AE title: 1 to 16 printable",
    ),
    "an AE title of spaces": (LISTENER + '[node]\nae_title = "  "', "node.ae_title: found '  '"),
    "an AE title with a backslash": (LISTENER + "[node]\nae_title = 'A\\B'", "node.ae_title:"),
    "an AE title with a line feed": (LISTENER + '[node]\nae_title = "A\\n"', "node.ae_title:"),
    "an AE title in another script": (LISTENER + '[node]\nae_title = "Ä"', "node.ae_title:"),
    "no workers": (LISTENER + "[node]\nworkers = 0", "node.workers: found 0, wanted 1 to 64"),
    "too many workers": (LISTENER + "[node]\nworkers = 65", "node.workers: found 65, wanted 1 to"),
    "a plugin twice": (
        LISTENER + '[node]\nplugins = ["audit", "audit"]',
        "node.plugins: found 'audit', wanted each name once",
    ),
    "signatures wanted, and nobody to trust": (
        LISTENER + '[signatures]\non_store = "verify-if-present"',
        "signatures.trust: found none, wanted whose signers to trust",
    ),
    "a signature policy nobody knows": (
        LISTENER + '[signatures]\non_store = "require-creater"',
        "signatures.on_store[0]: found 'require-creater', wanted one of 'ignore'",
    ),
    "ignored and looked at": (
        LISTENER + '[signatures]\non_store = ["ignore", "require-sr"]\ntrust = "ca.crt"',
        "signatures.on_store: found 'ignore' beside others, wanted it alone",
    ),
    "a signature policy for what is no AE title": (
        LISTENER + '[signatures]\ntrust = "ca.crt"\n[signatures.on_store_for]\n'
        '"ABCDEFGHIJKLMNOPQ" = "require-sr"',
        "signatures: found 'ABCDEFGHIJKLMNOPQ', wanted an AE title",
    ),
    "signatures looked at after the instance is kept": (
        LISTENER + '[node]\nplugins = ["storage", "signatures", "audit"]\n'
        '[signatures]\non_store = "require-sr"\ntrust = "ca.crt"',
        "wanted 'signatures' before 'storage'",
    ),
    "a quarantine and nothing that keeps": (
        LISTENER + '[node]\nplugins = ["signatures", "audit"]\n'
        '[signatures]\non_store = "require-sr"\ntrust = "ca.crt"\nrefused = "quarantine"',
        "wanted 'storage' among them: nothing else looks at refused",
    ),
    "an unknown TLS profile": (
        LISTENER + 'profile = "8997"',
        "listener[0].profile: found no TLS profile '8997'",
    ),
    "a retired TLS profile": (LISTENER + 'profile = "B.9"', "listener[0].profile: "),
    "TLS without a credential": (
        LISTENER + "credential = []",
        "listener[0].credential: found [], wanted a key and certificate, or profile = 'plain'",
    ),
    "client certificates and nobody to trust": (
        LISTENER + "trust = []",
        "listener[0].trust: found [], wanted whom to trust",
    ),
    "two listeners of one name": (
        (LISTENER + 'name = "a"\n') * 2,
        "listener: found 'a', wanted each name and address once",
    ),
    "two listeners on one port": (LISTENER * 2, "listener: found '127.0.0.1:2762', wanted each"),
    "an identity type that nobody verifies": (
        LISTENER + '[identity]\ntypes = ["passcode", "saml"]',
        "identity.types: found 'saml', and no table [identity.saml]",
    ),
    "no SOP class": (
        LISTENER + '[services]\nstorage = ["1.2.x"]',
        "services.storage: found '1.2.x', wanted a SOP Class UID",
    ),
    "a rule without an effect": (LISTENER + "[[access.rule]]", "access.rule[0].effect: missing"),
    "a rule with a wrong address": (
        LISTENER + '[[access.rule]]\neffect = "deny"\nname = "x"\naddress = ["10.0.0.0/33"]',
        "access.rule[0]: access rule 'x': address: ",
    ),
    "a binding that names nothing": (
        LISTENER + '[[certificate.binding]]\ncalling_ae = "CT1"',
        "certificate.binding[0]: the binding of AE title 'CT1' names nothing",
    ),
    "a repository without a host": (
        LISTENER + "[[audit.repository]]\nport = 1",
        "audit.repository[0].host: missing",
    ),
    "a repository with TLS and nobody to trust": (
        LISTENER + '[[audit.repository]]\nhost = "a"',
        "audit.repository[0].trust: found [], wanted whom to trust for its certificate",
    ),
    "a repository by UDP with a trust that means nothing": (
        LISTENER + '[[audit.repository]]\nhost = "a"\ntransport = "udp"\ntrust = "ca.crt"',
        "audit.repository[0].transport: found 'udp', wanted tls, since trust or credential",
    ),
    "a negative limit": (
        LISTENER + "[limits]\nconnections = -1",
        "limits.connections: found -1, wanted 1 to 100,000",
    ),
    "a limit that is not a number": (LISTENER + "[limits]\nidle_seconds = nan", "idle_seconds:"),
}


@pytest.mark.parametrize(("text", "want"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(text: str, want: str, loaded, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(text)
    assert str(caught.value).startswith(f"{tmp_path / 'node.toml'}: ")
    assert want in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_slip_in_the_toml_is_named_with_its_line(loaded, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"node\.toml:3: \w.*") as caught:
        loaded("[node]\n\nae_title = \n")
    assert caught.value.where == f"{tmp_path / 'node.toml'}:3"


def test_a_toml_that_ends_too_early_is_named(loaded) -> None:
    with pytest.raises(ConfigurationError, match=r"node\.toml: \w.*"):
        loaded('a = "')


def test_bytes_that_are_no_text_are_named(loaded) -> None:
    with pytest.raises(ConfigurationError, match=r"node\.toml: found bytes that are no UTF-8"):
        loaded(b"\xff")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no\.toml: No such file or directory"):
        config.load(tmp_path / "no.toml")
    with pytest.raises(ConfigurationError, match="Is a directory"):
        config.load(tmp_path)


def test_a_program_that_builds_the_tables_gets_the_same_errors() -> None:
    with pytest.raises(ConfigurationError, match=r"^port: found 65536, wanted 0 to 65,535$"):
        config.Listener(port=65536)
    with pytest.raises(ConfigurationError, match=r"^listener: found \[\]"):
        config.NodeConfig(listener=())
    with pytest.raises(ConfigurationError, match="found identity type 'ticket', wanted one of"):
        config.NodeConfig((config.Listener(identity={"ticket": "required"}),))  # type: ignore[dict-item]
    with pytest.raises(ConfigurationError, match="found identity mode 'yes', wanted one of"):
        config.NodeConfig((config.Listener(identity={"saml": "yes"}),))  # type: ignore[dict-item]


def test_the_tables_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.Limits().connections = 3  # type: ignore[misc]


toml_values = st.recursive(
    st.booleans() | st.integers(-9, 99999) | st.floats() | st.sampled_from(["", "plain", "x\x00"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "port", "host", "rule", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = [f.name for f in dataclasses.fields(config.NodeConfig)]


def _toml(value: object) -> str:
    """Return a value as TOML, in one line."""
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case str():
            return '"' + value.replace("\x00", "\\u0000") + '"'
    return str(value)


@hypothesis.given(st.dictionaries(st.sampled_from(KEYS), toml_values, max_size=4))
def test_whatever_stands_there_is_good_or_a_configuration_error(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, object]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in document.items()))
    with contextlib.suppress(ConfigurationError):  # and nothing else
        assert isinstance(config.load(path), config.NodeConfig)


UNGUARDED = {
    "access": '[[access.rule]]\neffect = "deny"\n',
    "certificate": '[[certificate.binding]]\ncalling_ae = "CT1"\nsan = "dns:ct1"\n',
    "identity": 'identity = "required"\n',
    "identity by type": 'identity = { passcode = "required" }\n',
    "identity of one AE title": 'identity_for = { CT1 = { passcode = "required" } }\n',
    "audit": '[[audit.repository]]\nhost = "a.example"\ntransport = "udp"\n',
}


@pytest.mark.parametrize("plugin", UNGUARDED)
def test_setting_without_the_gate_that_looks_at_it(plugin: str, tmp_path: Path) -> None:
    """Else it would be ignored without a word, and the node open."""
    path = tmp_path / "node.toml"
    path.write_text(f'node.plugins = ["storage"]\n[[listener]]\n{UNGUARDED[plugin]}')
    with pytest.raises(ConfigurationError, match=f"'{plugin.split()[0]}' among them"):
        config.load(path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("failures = -1", "found failures = -1, wanted 0 to 1000"),
        ("failures = 100000", "found failures = 100000, wanted 0 to 1000"),
        ("address_failures = 1001", "found address_failures = 1001"),
        ("window_seconds = 0.0", "found window_seconds = 0.0, wanted more than 0"),
        ("lock_seconds = -1.0", "found lock_seconds = -1.0, wanted more than 0"),
    ],
)
def test_the_numbers_of_a_lock_out_have_bounds(line: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(f'[[listener]]\nprofile = "plain"\n[identity.lockout]\n{line}\n')
    with pytest.raises(ConfigurationError) as caught:
        config.load(path)
    assert words in str(caught.value)
    assert "identity.lockout" in str(caught.value)
