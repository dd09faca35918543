"""From a TOML file to the tables, strictly.

Rules of `load`, in order:

1. The file is TOML; a slip in it is named with its line.
2. Every key is one we know. An unknown key is an error that names the nearest known one: in a
   security setting, a typing error must not mean "the default".
3. Every value has the type and range its key wants. A list of one may be written without brackets.
4. Relative paths, those of the defaults included, are relative to the folder of the file.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from dicom_secure_node.config.identity import Location
from dicom_secure_node.config.tables import NodeConfig
from dicom_secure_node.errors import ConfigurationError

T = TypeVar("T")


def load(path: Path) -> NodeConfig:
    """Return the configuration in the TOML file `path`, paths made absolute.

    Raises
    ------
    ConfigurationError
        With file, dotted key, what was found and what was wanted.
    """
    return load_as(NodeConfig, path)


def load_as(cls: type[T], path: Path) -> T:
    """Return what the TOML file `path` holds, as tables of the dataclass `cls`.

    Raises
    ------
    ConfigurationError
        With file, dotted key, what was found and what was wanted.
    """
    try:
        document = tomllib.loads(path.read_bytes().decode())
    except OSError as exc:
        raise ConfigurationError(exc.strerror or "cannot be read", str(path)) from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError("found bytes that are no UTF-8", str(path)) from exc
    except tomllib.TOMLDecodeError as exc:
        slip = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(exc))
        text, line = slip.groups() if slip else (str(exc), None)
        raise ConfigurationError(text, f"{path}:{line}" if line else str(path)) from exc
    return _Reader(path).table(cls, document, "")


_WORDS = {str: "a text", Path: "a path", bool: "true or false", int: "a whole number"}
_WORDS |= {float: "a number", list: "a list", dict: "a table"}


def _word(kind: type) -> str:
    return _WORDS.get(kind, "a date or time")


def _nearest(found: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(found, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"


class _Reader:
    """Turns parsed TOML into dataclasses, by their type hints."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._folder = file.resolve().parent

    def _wrong(self, key: str, message: str) -> ConfigurationError:
        return ConfigurationError(message, f"{self._file}: {key}" if key else str(self._file))

    def table(self, cls: type[T], found: object, key: str) -> T:
        if not isinstance(found, dict):
            raise self._wrong(key, f"found {_word(type(found))}, wanted a table")
        known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        self._check_names(found, known, key)
        hints = typing.get_type_hints(cls)
        values = {name: self._field(f, hints[name], found, key) for name, f in known.items()}
        try:
            return cls(**values)
        except ConfigurationError as exc:
            if exc.where in known:  # a check of ours: it names the key
                message = str(exc).removeprefix(f"{exc.where}: ")
                raise self._wrong(_join(key, exc.where), message) from exc
            raise self._wrong(key, str(exc)) from exc

    def _check_names(self, found: Iterable[str], known: Collection[str], key: str) -> None:
        for name in found:
            if name not in known:
                raise self._wrong(_join(key, name), f"unknown key; {_nearest(name, known)}")

    def _field(
        self, f: dataclasses.Field[Any], hint: Any, found: dict[str, object], table: str
    ) -> object:
        key = _join(table, f.name)
        if f.name in found:
            return self._value(hint, found[f.name], key)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            return self.table(hint, {}, key)  # so that the paths in its defaults are resolved
        if f.default_factory is not dataclasses.MISSING:
            return f.default_factory()
        if f.default is dataclasses.MISSING:
            raise self._wrong(key, "missing")
        return self._resolved(f.default)

    def _resolved(self, default: object) -> object:
        if isinstance(default, tuple):
            return tuple(map(self._resolved, default))
        return self._folder / default if isinstance(default, Path) else default

    def _value(self, hint: Any, found: object, key: str, otherwise: str = "") -> object:
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            return self.table(hint, found, key)
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin in (types.UnionType, typing.Union):
            # X | None or X | Mapping. TOML has no null: what is no table has to be an X.
            table = next((arm for arm in args if typing.get_origin(arm) is Mapping), None)
            if table and isinstance(found, dict):
                return self._value(table, found, key)
            return self._value(args[0], found, key, ", or a table" if table else "")
        if origin is Literal:
            if found not in args or not isinstance(found, str):
                near = _nearest(found, args) if isinstance(found, str) else ""
                wanted = ", ".join(map(repr, args)) + otherwise
                raise self._wrong(
                    key, f"found {found!r}, wanted one of {wanted}; {near}".rstrip("; ")
                )
            return found
        if origin is tuple:
            items = found if isinstance(found, list) else [found]
            return tuple(self._value(args[0], v, f"{key}[{i}]") for i, v in enumerate(items))
        if origin is Mapping:
            if not isinstance(found, dict):
                raise self._wrong(key, f"found {_word(type(found))}, wanted a table")
            if typing.get_origin(args[0]) is Literal:
                self._check_names(found, typing.get_args(args[0]), key)
            return {name: self._value(args[1], v, _join(key, name)) for name, v in found.items()}
        return self._scalar(hint, found, key)

    def _scalar(self, hint: type, found: object, key: str) -> object:
        if hint is Location and isinstance(found, str):
            return found if "://" in found else str(self._scalar(Path, found, key))
        if hint is Path and isinstance(found, str):
            path = found.removeprefix("sqlite:///")  # the index is a URL in other products' words
            if not path or "://" in path or not path.isprintable():
                raise self._wrong(key, f"found {found!r}, wanted a path")
            return self._folder / path
        if hint is float and type(found) is int:
            return float(found)
        if type(found) is not hint:
            raise self._wrong(key, f"found {_word(type(found))}, wanted {_word(hint)}")
        return found


def _join(table: str, key: str) -> str:
    return f"{table}.{key}" if table else key
