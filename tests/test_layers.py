"""Imports point down, and other rules of the layout a machine can watch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dicom_secure_node"

LAYERS = {
    "errors": 0,
    "spec": 0,
    "pki": 1,
    "elements": 1,
    "durable": 1,
    "tls": 2,
    "identity": 2,
    "signatures": 2,
    "media": 2,
    "deid": 2,
    "audit": 2,
    "archive": 2,
    "system": 2,
    "node": 3,
    "probe": 4,
    "config": 5,
    "secure_node": 6,
    "audit_web": 6,
    "statement": 7,
    "commands": 8,
    "__main__": 9,
}

USERS_OF_CONFIG = ("secure_node", "statement", "commands")
MAX_LINES = 500
LONGER: dict[str, str] = {
    # path below the package: why it may be longer (spec/ holds data and is not counted)
}


def modules(package: Path) -> Iterator[tuple[str, Path, ast.Module]]:
    """Yield unit, path and syntax tree of each module; the package's own ``__init__`` is ``""``."""
    for path in sorted(package.rglob("*.py")):
        home = path.relative_to(package).parts[0].removesuffix(".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        yield ("" if home == "__init__" else home), path, tree


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything imported, ``from a import b`` as ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def violations(package: Path) -> Iterator[str]:
    """Yield every import that points up or sideways, in words."""
    for home, path, tree in modules(package):
        if home and home not in LAYERS:
            yield f"{path}: {home} has no layer"
            continue
        for line, name in imported(tree):
            where = f"{path.relative_to(package.parent)}:{line}"
            top, _, rest = name.partition(".")
            target = rest.split(".")[0]
            layer = LAYERS[home or "commands"]  # the package's own __init__ shows what is public
            if not top:
                yield f"{where}: relative import"
            if top in ("pynetdicom", "_pynetdicom") and layer < LAYERS["node"]:
                yield f"{where}: only node and above may import pynetdicom"
            if top == package.name and target in LAYERS and target != home:
                if LAYERS[target] >= layer:
                    yield f"{where}: {home or '__init__'} may not import {target}"
                if target == "config" and home not in USERS_OF_CONFIG:
                    yield f"{where}: {home} may not know the configuration"


def test_imports_point_down_only() -> None:
    assert list(violations(PACKAGE)) == []


PLANTED = {
    "upwards": ("pki/a.py", "from dicom_secure_node.node import host", "pki may not import node"),
    "sideways in layer 2": (
        "tls/a.py",
        "import dicom_secure_node.audit.trail",
        "tls may not import audit",
    ),
    "sideways in layer 1": (
        "pki/a.py",
        "from dicom_secure_node import durable",
        "pki may not import durable",
    ),
    "pynetdicom below node": (
        "audit/a.py",
        "def f():\n    from pynetdicom.ae import AE",
        "only node and above may import pynetdicom",
    ),
    "relative": ("tls/a.py", "from . import facts", "relative import"),
    "unknown unit": ("helpers/a.py", "", "helpers has no layer"),
}


@pytest.mark.parametrize(("file", "text", "want"), PLANTED.values(), ids=PLANTED)
def test_a_planted_violation_is_found(file: str, text: str, want: str, tmp_path: Path) -> None:
    path = tmp_path / "dicom_secure_node" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    (found,) = violations(tmp_path / "dicom_secure_node")
    assert found.endswith(want)


def test_a_planted_import_of_a_lower_layer_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "dicom_secure_node/node/a.py"
    path.parent.mkdir(parents=True)
    path.write_text("import pynetdicom\nfrom dicom_secure_node.tls import facts\n")
    assert list(violations(tmp_path / "dicom_secure_node")) == []


def _attributes(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.lineno, f"{node.value.id}.{node.attr}"


def test_only_commands_look_at_the_environment() -> None:
    """Two nodes in one process may differ, and a configuration file says all there is to say."""
    doors = {"os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv"}
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for home, path, tree in modules(PACKAGE)
        if home not in ("commands", "__main__")
        for line, name in (*_attributes(tree), *imported(tree))
        if name in doors
    ]
    assert found == []


def test_nobody_turns_pynetdicom_s_switches() -> None:
    """They belong to the application that embeds us (``pynetdicom._config``)."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for _, path, tree in modules(PACKAGE)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Attribute)
        and isinstance(target.value, ast.Name)
        and target.value.id == "_config"
    ]
    assert found == []


def test_no_module_holds_a_second_subject() -> None:
    """Past 500 lines there is one, as a rule; an exception carries its reason in `LONGER`."""
    lines = {
        str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines())
        for home, path, _ in modules(PACKAGE)
        if home != "spec"
    }
    assert {name for name, count in lines.items() if count > MAX_LINES} == set(LONGER)


def test_every_module_says_what_it_is_for() -> None:
    assert [str(path) for _, path, tree in modules(PACKAGE) if not ast.get_docstring(tree)] == []


def test_names_of_test_files_are_unique() -> None:
    """There is no ``__init__.py`` below tests/ to tell two files of one name apart."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
    assert list((ROOT / "tests").rglob("__init__.py")) == []
