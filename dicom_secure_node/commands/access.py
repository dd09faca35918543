"""``access explain``: may they, and which rule says so?"""

from __future__ import annotations

import argparse
import ipaddress
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from dicom_secure_node import commands
from dicom_secure_node.commands.home import DEFAULT_HOME
from dicom_secure_node.commands.output import emit_json, one_line, table
from dicom_secure_node.config import PLAIN, Listener, NodeConfig, load
from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.identity.access import AccessFacts, AccessPolicy
from dicom_secure_node.identity.access_explain import Explanation, RuleOutcome, explain
from dicom_secure_node.identity.access_findings import ListenerFacts
from dicom_secure_node.identity.claims import IdentityType
from dicom_secure_node.identity.operations import keyword_of, operations_named, sop_class_patterns
from dicom_secure_node.identity.policy import IdentityPolicy
from dicom_secure_node.pki.files import read_certificates

_EXAMPLES = """examples:
  dicom-secure-node access explain --calling-ae CT1 --address 10.1.2.3
  dicom-secure-node access explain --user ada --group radiology --operation store \\
      --sop-class CTImageStorage --at 2026-03-01T22:30+01:00

What is not given is unknown, as it would be on the wire, and matches no condition. Without
operation and SOP class the question is whether the association would be accepted. Exit code 0
is yes, 1 is no. Only the access rules are asked: not TLS, not the identity, not the bindings of
AE titles to certificates.
"""


def add_parser(subparsers: commands.Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``access`` with its action."""
    parser = subparsers.add_parser(
        "access",
        help="ask the access rules of a configuration",
        description="Ask the access rules of a configuration.",
        epilog="Example: dicom-secure-node access explain --calling-ae CT1 --operation store",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    action = actions.add_parser(
        "explain",
        help="print the decision, the rule that decides, and what the others lack",
        description="Print the decision, the rule that decides, and what the others lack.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_options(action)


def _add_options(action: argparse.ArgumentParser) -> None:
    file = action.add_mutually_exclusive_group()
    file.add_argument(
        "--home",
        type=Path,
        default=DEFAULT_HOME,
        metavar="DIR",
        help="home of the node, with node.toml (default: ./secure-node)",
    )
    file.add_argument("--config", type=Path, metavar="FILE", help="the configuration instead")
    who = action.add_argument_group("who asks")
    who.add_argument("--user", default="", metavar="NAME", help="user somebody verified")
    who.add_argument(
        "--unproven", action="store_true", help="nobody verified the user (PS3.15 B.4)"
    )
    who.add_argument("--group", action="append", default=[], help="group of the user; repeatable")
    who.add_argument(
        "--attribute",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what directory, assertion or token say of the user; repeatable",
    )
    who.add_argument("--certificate", type=Path, metavar="FILE", help="certificate of the peer")
    who.add_argument("--calling-ae", default="", metavar="AE")
    who.add_argument("--address", default="", metavar="IP")
    what = action.add_argument_group("what for, where and when")
    what.add_argument("--called-ae", default="", metavar="AE")
    what.add_argument(
        "--listener", default="", metavar="NAME", help="needed where there are several"
    )
    what.add_argument(
        "--operation", default="", metavar="WORD", help="echo, store, query, C-MOVE, N-ACTION ..."
    )
    what.add_argument(
        "--sop-class", default="", metavar="UID", help="UID or keyword, e.g. CTImageStorage"
    )
    what.add_argument("--at", default="", metavar="ISO", help="moment with zone (default: now)")
    action.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the explanation; the exit code is the decision."""
    config = load(args.config or args.home / "node.toml")
    explanation = explain(AccessPolicy(config.access.rule), _facts(args, config))
    notes = list(_notes(config, explanation.facts.listener))
    if args.json:
        _print_json(explanation, notes)
    else:
        _print(explanation, notes)
    return commands.DONE if explanation.decision.allowed else commands.NEGATIVE


def listener_facts(config: NodeConfig) -> tuple[ListenerFacts, ...]:
    """Return what `access_findings.unreachable` has to know of each listener."""
    return tuple(
        _listener_facts(one, one.identity_policy(config.identity)) for one in config.listener
    )


def _listener_facts(listener: Listener, policy: IdentityPolicy) -> ListenerFacts:
    protected = listener.profile != PLAIN
    types = {kind for demand in policy.demands for kind in demand.taken - demand.idle}
    return ListenerFacts(
        listener.label,
        listener.host,
        certificates=protected and listener.client_certificate != "ignore",
        users=bool(types),
        # What needs verifying is not taken in clear, and a bare name is nobody's.
        proven_users=protected and bool(types - {IdentityType.USERNAME}),
    )


def _facts(args: argparse.Namespace, config: NodeConfig) -> AccessFacts:
    return AccessFacts(
        calling_ae=args.calling_ae,
        called_ae=args.called_ae,
        user=args.user,
        user_proven=bool(args.user) and not args.unproven,
        groups=frozenset(args.group),
        attributes=dict(_pair(text) for text in args.attribute),
        address=_address(args.address),
        certificate=read_certificates(args.certificate)[0] if args.certificate else None,
        listener=_listener(args.listener, config),
        operation=_one("--operation", args.operation, operations_named),
        sop_class=_one("--sop-class", args.sop_class, sop_class_patterns),
        at=_moment(args.at) if args.at else None,
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigurationError(f"found {text!r}, wanted NAME=VALUE", "--attribute")
    return name, value


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError as exc:
        raise ConfigurationError(f"found {text!r}, wanted an IP address", "--address") from exc


def _listener(name: str, config: NodeConfig) -> str:
    labels = [one.label for one in config.listener]
    if name and name not in labels:
        raise ConfigurationError(f"found {name!r}, wanted one of {', '.join(labels)}", "--listener")
    return name or (labels[0] if len(labels) == 1 else "")


def _one(option: str, text: str, meaning: Callable[[str], tuple[str, ...]]) -> str:
    """Return the one thing `text` stands for, empty where it is empty."""
    if not text:
        return ""
    try:
        found = meaning(text)
    except ValueError as exc:
        raise ConfigurationError(str(exc), option) from exc
    if len(found) > 1 or set(found[0]) & set("*?["):
        raise ConfigurationError(f"found {text!r}, wanted one of {', '.join(found)}", option)
    return found[0]


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ConfigurationError(f"found {text!r}, wanted ISO 8601", "--at") from exc
    if moment.tzinfo is None:
        raise ConfigurationError(f"found {text!r}, wanted a zone as well: {text}+01:00", "--at")
    return moment


def _notes(config: NodeConfig, listener: str) -> Iterator[str]:
    """Yield why the node would not act on the decision."""
    if any(one.label == listener and one.mode == "observe" for one in config.listener):
        yield f"listener {listener!r} only observes: a refusal is recorded, not carried out"


def _print_json(explanation: Explanation, notes: list[str]) -> None:
    decision, facts = explanation.decision, explanation.facts
    emit_json(
        {
            "allowed": decision.allowed,
            "reason": decision.reason,
            "rule": next((one.key for one in explanation.outcomes if one.decides), None),
            "question": _question(explanation),
            "operation": facts.operation,
            "sop_class": facts.sop_class,
            "at": facts.at,
            "rules": [
                {
                    "key": one.key,
                    "effect": one.rule.effect,
                    "name": one.rule.name,
                    "matches": one.matches,
                    "decides": one.decides,
                    "failed": {
                        failure.condition: {"found": failure.found, "wanted": failure.wanted}
                        for failure in one.failures
                    },
                }
                for one in explanation.outcomes
            ],
            "notes": notes,
        }
    )


def _print(explanation: Explanation, notes: list[str]) -> None:
    decision = explanation.decision
    answer = "allowed" if decision.allowed else "refused"
    lines = [f"{_question(explanation)}: {answer}: {decision.reason}", *notes]
    sys.stdout.writelines(f"{one_line(line)}\n" for line in lines)
    if explanation.outcomes:
        rows = [
            (one.key, one.rule.effect, one.rule.name, _outcome(one)) for one in explanation.outcomes
        ]
        sys.stdout.write("\n" + table(rows, ("rule", "effect", "name", "")) + "\n")


def _question(explanation: Explanation) -> str:
    facts = explanation.facts
    if not facts.operation:
        return "association"
    return " ".join(filter(None, (facts.operation, keyword_of(facts.sop_class) or facts.sop_class)))


def _outcome(outcome: RuleOutcome) -> str:
    if outcome.decides:
        return "matches and decides"
    return "matches" if outcome.matches else "; ".join(map(str, outcome.failures))
