"""What is declared is what is used: dependencies, extras, version, shipped files."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import sys
import sysconfig
from configparser import ConfigParser
from pathlib import Path

import pytest

import dicom_secure_node
from dicom_secure_node import commands, errors

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dicom_secure_node"

# import name -> distribution, where they differ
DISTRIBUTIONS = {
    "OpenSSL": "pyOpenSSL",
    "service_identity": "service-identity",
    "prometheus_client": "prometheus-client",
    "jwt": "PyJWT",
    "ldap": "python-ldap",
    "pkcs11": "python-pkcs11",
    "saml2": "pysaml2",
    "pyhanko_certvalidator": "pyhanko-certvalidator",
    "cryptography_vectors": "cryptography-vectors",
}


@pytest.fixture(scope="module")
def setup() -> ConfigParser:
    """setup.cfg, ``%(name)s`` replaced as setuptools does."""
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def _names(requirements: str) -> set[str]:
    lines = (line.strip() for line in requirements.splitlines())
    return {re.split(r"[\s<>=!~;\[]", line)[0] for line in lines if line and line[0] != "#"}


def _imports(path: Path) -> set[str]:
    """Return distributions imported anywhere in a module, ``import_module("x.y")`` included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            found |= {a.value for a in node.args if isinstance(a, ast.Constant)}
    tops = {str(name).partition(".")[0] for name in found}
    ours = {*sys.stdlib_module_names, PACKAGE.name}
    return {DISTRIBUTIONS.get(top, top) for top in tops - ours}


def test_what_is_imported_is_declared_and_the_reverse(setup: ConfigParser) -> None:
    imported = set().union(*(_imports(path) for path in PACKAGE.rglob("*.py")))
    declared = _names(setup["options"]["install_requires"])
    extras = _names(setup["options.extras_require"]["all"])
    assert imported == declared | extras


def test_what_the_tests_import_is_declared(setup: ConfigParser) -> None:
    imported = set().union(*(_imports(path) for path in (ROOT / "tests").rglob("*.py")))
    declared = _names(setup["options"]["install_requires"])
    for extra in ("all", "test"):
        declared |= _names(setup["options.extras_require"][extra])
    assert imported - {"tests", "certs"} <= declared  # folders of this repository


def test_all_takes_every_run_time_extra(setup: ConfigParser) -> None:
    extras = dict(setup["options.extras_require"])
    run_time = set().union(
        *(_names(v) for name, v in extras.items() if name not in ("all", "test", "bench"))
    )
    assert _names(extras["all"]) == run_time


def test_a_missing_extra_names_one_that_exists(setup: ConfigParser) -> None:
    named = {
        node.args[1].value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and "MissingExtra" in (getattr(node.func, "id", ""), getattr(node.func, "attr", ""))
        and len(node.args) > 1
        and isinstance(node.args[1], ast.Constant)
    }
    assert named <= set(setup["options.extras_require"])
    text = str(errors.MissingExtra("a progress bar", "progress"))
    assert text.endswith('pip install "dicom-secure-node[progress]"')


def test_the_version_is_that_of_the_metadata(setup: ConfigParser) -> None:
    declared = setup["metadata"]["version"]
    assert importlib.metadata.version("dicom-secure-node") == declared
    assert dicom_secure_node.__version__ == declared
    assert f"## {declared}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_command_is_installed() -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name=commands.PROGRAM)
    assert entry.load() is commands.main


def test_types_and_data_are_shipped() -> None:
    installed = [sysconfig.get_path("purelib")]  # and not the traces a build leaves in the tree
    (distribution,) = importlib.metadata.distributions(name="dicom-secure-node", path=installed)
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    wanted = {"dicom_secure_node/py.typed"}
    for path in (PACKAGE / "spec").iterdir():
        if path.suffix in (".json", ".rng", ".rnc"):
            wanted.add(f"dicom_secure_node/spec/{path.name}")
    for path in (PACKAGE / "audit_web" / "pages").iterdir():
        wanted.add(f"dicom_secure_node/audit_web/pages/{path.name}")
    shipped = {str(path) for path in distribution.files or ()}
    # An editable installation ships nothing; the build installs a wheel.
    assert origin.get("dir_info", {}).get("editable") or wanted <= shipped


def test_every_public_name_exists() -> None:
    assert [
        name for name in dicom_secure_node.__all__ if not hasattr(dicom_secure_node, name)
    ] == []


def test_each_verb_has_one_module() -> None:
    """Beside them stand only modules that are no verbs."""
    trees = {p.stem: ast.parse(p.read_text()) for p in (PACKAGE / "commands").glob("*.py")}
    verbs = {
        name
        for name, tree in trees.items()
        if any(isinstance(n, ast.FunctionDef) and n.name == "add_parser" for n in tree.body)
    }
    assert verbs == set(commands.VERBS)
