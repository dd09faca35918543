"""conf/node.toml shows every key once, with its default."""

from __future__ import annotations

import dataclasses
import re
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_secure_node import config

EXAMPLE = Path(__file__).parent.parent.parent / "conf" / "node.toml"
AS_IS = EXAMPLE.read_text(encoding="utf-8")
# A line that begins with "#" and no blank is a key that is commented out.
UNCOMMENTED = re.sub(r"^#(?=[^ #\n])", "", AS_IS, flags=re.MULTILINE)

# Shown where it could have no default: the value means nothing.
NO_DEFAULT = {
    "listener.passphrase_file",
    "listener.identity_for",
    "signatures.on_store_for",
    "archive.index",
    "listener.identity_types",
    "audit.repository.host",
    "audit.repository.trust",
    "audit.repository.credential",
}


# Tables that have no default as a whole: what they show is an example.
EXAMPLES = (
    "access.rule.",
    "certificate.binding.",
    "audit.suppress.",
    *(f"identity.{name}." for name in ("ldap", "kerberos", "saml", "jwt")),
)


def keys_of(cls: type) -> Iterator[tuple[str, object]]:
    """Yield dotted key and default of every setting; a list of tables counts as one table."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        inner = next(filter(dataclasses.is_dataclass, typing.get_args(hint)), hint)
        if dataclasses.is_dataclass(inner):
            yield from ((f"{field.name}.{key}", value) for key, value in keys_of(inner))
        else:
            yield field.name, field.default


def keys_in(table: dict[str, object], known: set[str], prefix: str = "") -> Iterator[tuple]:
    """Yield dotted key and value of every setting that stands in the file."""
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, list) and value and isinstance(value[0], dict):
            (value,) = value  # each table of a list is shown once
        if isinstance(value, dict) and key not in known:
            yield from keys_in(value, known, f"{key}.")
        else:
            yield key, value


DEFAULTS = dict(keys_of(config.NodeConfig))
SHOWN = dict(keys_in(tomllib.loads(UNCOMMENTED), set(DEFAULTS)))


def test_every_key_is_shown_and_every_shown_key_exists() -> None:
    assert set(SHOWN) == set(DEFAULTS)


@pytest.mark.parametrize("key", sorted(DEFAULTS))
def test_what_is_shown_is_the_default(key: str) -> None:
    free = key.startswith(EXAMPLES) or key in NO_DEFAULT
    default = DEFAULTS[key]
    if isinstance(default, tuple):
        default = [str(item) for item in default]
    elif isinstance(default, Path):
        default = str(default)
    assert free or SHOWN[key] == default


def test_keys_with_a_default_that_can_be_written_are_not_commented_out() -> None:
    active = dict(keys_in(tomllib.loads(AS_IS), set(DEFAULTS)))
    optional = (*EXAMPLES, "audit.repository.")
    assert {key for key in SHOWN if not key.startswith(optional)} - NO_DEFAULT == set(active)


@pytest.mark.parametrize("text", [AS_IS, UNCOMMENTED], ids=["as it is", "all uncommented"])
def test_the_example_loads(text: str, tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(text, encoding="utf-8")
    found = config.load(path)
    if text == AS_IS:
        path.write_text("[[listener]]")
        assert found == config.load(path)


def test_the_reference_page_holds_every_key() -> None:
    page = (EXAMPLE.parent.parent / "docs" / "configuration.md").read_text(encoding="utf-8")
    missing = [key for key in DEFAULTS if f"`{key.rpartition('.')[2]}`" not in page]
    assert missing == []
