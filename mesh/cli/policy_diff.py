"""`mesh policy diff`: what is different between two policies, part by part, as a unified diff of what people read.

A policy is compared by the text that the engine writes of it, so that line breaks and comments of a folder make no difference, and a
folder, a bundle and an epoch of the mesh can be held against one another.
"""

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import msgspec

from mesh.adapters.trustfiles import read_bounded
from mesh.cli import client, epochs
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Payload
from mesh.core.law.policy import Bundle, Terms, read_bundle
from mesh.errors import Refused
from mesh.limits import BUNDLE_BYTES_MAX

__all__ = ["diff"]

_EPOCH: Final = re.compile(r"([a-z0-9-]{1,64})@([0-9]{1,9})")


class _Side(NamedTuple):
    """One of the two."""

    name: str
    bundle: Bundle
    terms: Mapping[str, Terms] | None
    """A bundle says none."""
    enforcers: list[str] | None

    def parts(self) -> dict[tuple[str, str], str]:
        """(part, name) to its text, in the order in which people read them."""
        from mesh.adapters.cedar_child import policy_texts

        bundle = self.bundle
        found = {("policy", policy.id): text for policy, text in zip(bundle.policies, policy_texts(bundle), strict=True)}
        found |= {("action", action.name): _pretty(action) for action in bundle.actions}
        found |= {("terms", name): _pretty(terms) for name, terms in (self.terms or {}).items()}
        if self.enforcers is not None:
            found["enforcers", ""] = "".join(f"{name}\n" for name in sorted(self.enforcers))
        found["schema", ""] = bundle.schema
        found |= {("auditor", auditor.name): _pretty(auditor) for auditor in bundle.auditors}
        found |= {("type", kind.name): _pretty(kind) for kind in bundle.types}
        found |= {("attribute", attribute.name): _pretty(attribute) for attribute in bundle.principal}
        found |= {("entity", f"{entity.type}::{entity.id}"): _pretty(entity) for entity in bundle.entities}
        found |= {("case", case.name): _pretty(case) for case in bundle.cases}
        found["profile", ""] = f"{bundle.profile}\n"
        return found


@click.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@format_option
@pass_cli
def diff(cli: Cli, before: str, after: str) -> None:
    """What B changes against A: policies, actions, terms, enforcers, schema, auditors, types, entities, cases.

    Each is a policy folder, a bundle file, or DOMAIN@EPOCH for what members of the mesh show. A bundle file says nothing of terms and
    enforcers: against one they are not compared.
    """
    one, other = _side(cli, before), _side(cli, after)
    changes = _changes(one, other)
    if cli.format == "table":
        for change in changes:
            cli.lines([f"{change['change']} {change['part']} {change['name']}".rstrip()])
            cli.text(change["diff"])
            cli.lines([""])
    else:
        cli.rows((), changes)
    if one.bundle.domain != other.bundle.domain:
        cli.say(f"{before} is of {one.bundle.domain}, {after} of {other.bundle.domain}")
    if one.terms is None or other.terms is None:
        cli.say("terms and enforcers are not compared: a bundle does not say them")
    told = [f"{sum(change['change'] == kind for change in changes)} {kind}" for kind in ("added", "removed", "changed")]
    cli.say(", ".join(told) if changes else "no difference")


def _changes(one: _Side, other: _Side) -> list[dict[str, str]]:
    old, new = one.parts(), other.parts()
    left_out = {"terms", "enforcers"} if one.terms is None or other.terms is None else set[str]()
    found = list[dict[str, str]]()
    for part, name in {**old, **new}:
        before, after = old.get((part, name)), new.get((part, name))
        if before == after or part in left_out:
            continue
        kind = "added" if before is None else "removed" if after is None else "changed"
        lines = difflib.unified_diff(
            (before or "").splitlines(), (after or "").splitlines(), fromfile=one.name, tofile=other.name, lineterm="", n=3
        )
        found.append({"change": kind, "part": part, "name": name, "diff": "\n".join(lines)})
    return found


def _side(cli: Cli, what: str) -> _Side:
    """A folder, a bundle file or an epoch of the mesh.

    Raises:
        Refused: ``usage`` if it is none of them, and what is wrong with it.
    """
    path = Path(what)
    if path.is_dir():
        from mesh.policy.build import check

        built = check(path)
        return _Side(what, built.bundle, built.actions, list(built.enforcers))
    if path.is_file():
        return _Side(what, canonical.decode(Bundle, read_bounded(path, BUNDLE_BYTES_MAX), bytes_max=BUNDLE_BYTES_MAX), None, None)
    found = _EPOCH.fullmatch(what)
    if found is None:
        raise Refused("usage", f"{what[:80]!r} is no folder, no file, and not DOMAIN@EPOCH")
    domain, epoch = found[1], int(found[2])

    async def work(mesh: client.MeshClient, library: client.Library) -> _Side:
        epochs.check_domain(mesh.roster, domain)
        held = await epochs.read(cli, mesh, library.governance, [domain])
        manifest = held.law(domain, epoch).manifest
        bundle = read_bundle(await epochs.bundle(mesh, library, manifest.digest), digest=manifest.digest)
        return _Side(what, bundle, manifest.actions, manifest.enforcers)

    return client.run(cli, work)


def _pretty(value: Payload) -> str:
    plain: Any = msgspec.to_builtins(value)
    return json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
