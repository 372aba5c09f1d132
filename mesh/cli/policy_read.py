"""`mesh policy ls` and `mesh policy show`: the epochs that members show, verified here, and how each member stands by its signed word.

Not here: what is different between two (:mod:`mesh.cli.policy_diff`).
"""

from pathlib import Path
from typing import Any

import click

from mesh.adapters.clock import wall_ms
from mesh.cli import client, cosigning, epochs, telling
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import Activation
from mesh.core.law.governance import Law
from mesh.core.law.policy import Bundle, Manifest, read_bundle
from mesh.core.law.roster import Role, Roster
from mesh.core.law.travel import Said
from mesh.errors import Refused

__all__ = ["ls", "show"]


@click.command()
@click.argument("domain", required=False)
@format_option
@pass_cli
def ls(cli: Cli, domain: str | None) -> None:
    """Every epoch that any member shows, of DOMAIN or of all: who signed it, how many have admitted it, where it decides now."""

    async def work(mesh: client.MeshClient, library: client.Library) -> list[dict[str, Any]]:
        if domain is not None:
            epochs.check_domain(mesh.roster, domain)
        domains = [domain] if domain is not None else sorted(mesh.roster.policy)
        held = await epochs.read(cli, mesh, library.governance, domains)
        return [_row(mesh, held, law) for name in domains for law in held.governance.laws.get(name, ())]

    rows = client.run(cli, work)
    cli.rows(("domain", "epoch", "digest", "signed", "expires", "admitted", "active", "begins", "reason"), rows)
    if any(row["forked"] for row in rows):
        cli.say("forked: the signers of this domain have said two things. It stays shut; `mesh explain policy_conflict` says what to do")
    if rows:
        cli.next(f"mesh policy show {rows[-1]['domain']} --epoch {rows[-1]['epoch']}")


def _row(mesh: client.MeshClient, held: epochs.Epochs, law: Law) -> dict[str, Any]:
    claims, roster = law.manifest, mesh.roster
    admitted = held.admitted(law)
    newer = [
        name for name, beat in held.beats.items() if any(s.domain == claims.domain and s.admitted > claims.epoch for s in beat.policies)
    ]
    active = held.active(law)
    regions = sorted({roster.member(name).region for name in active})
    forked = _forked(held, claims.domain)
    return {
        "domain": claims.domain,
        "epoch": claims.epoch,
        "digest": claims.digest[:19],
        "signed": f"{len(held.statements[law.manifest_id].signatures)} of {roster.policy[claims.domain].threshold}",
        "expires": telling.when(claims.expires_ms) + (" expired" if claims.expires_ms <= wall_ms() else ""),
        "admitted": "a newer one" if newer and not admitted else epochs.stand(mesh, admitted),
        "active": regions + (["forked"] if forked else []),
        "begins": _begins(held, law, roster),
        "reason": claims.reason,
        "id": law.manifest_id,
        "bundle": claims.digest,
        "signed_by": sorted(held.statements[law.manifest_id].signatures),
        "admitted_by": admitted,
        "active_at": active,
        "forked": forked,
    }


def _forked(held: epochs.Epochs, domain: str) -> bool:
    try:
        held.check_one_history(domain)
    except Refused:
        return True
    return False


def _begins(held: epochs.Epochs, law: Law, roster: Roster) -> dict[str, str]:
    """Region to when this epoch begins there, if anything says that it does."""
    claims = law.manifest
    if claims.epoch == 1:
        return {"everywhere": telling.when(claims.not_before_ms)}
    found = dict[str, int]()
    for _, step in held.activations(claims.domain, law.manifest_id):
        for region in {member.region for member in roster.members}:
            at_ms = step.begins_ms(region)
            if at_ms is not None:
                found[region] = min(at_ms, found.get(region, at_ms))
    if len(found) == len({member.region for member in roster.members}) and len(set(found.values())) == 1:
        return {"everywhere": telling.when(next(iter(found.values())))}
    return {region: telling.when(at_ms) for region, at_ms in sorted(found.items())}


@click.command()
@click.argument("what", metavar="DOMAIN|FILE")
@click.option("--epoch", type=click.IntRange(1), help="Which; by default the newest that members show.")
@format_option
@pass_cli
def show(cli: Cli, what: str, epoch: int | None) -> None:
    """One epoch of DOMAIN: who signed it, its terms, the text of its policies, what is sealed for whom, from when it decides where.

    Of a FILE, a manifest or activation on its way between signers: what it says, who signed it, and whose line is missing. No mesh is asked
    then.
    """
    path = Path(what)
    if path.is_file():
        statement, roster = cosigning.read_file(path), client.files(cli).governance.roster
        cosigning.tell(cli, statement, _role_of(statement, roster), path)
        return

    async def work(mesh: client.MeshClient, library: client.Library) -> tuple[dict[str, Any], bytes | None]:
        epochs.check_domain(mesh.roster, what)
        held = await epochs.read(cli, mesh, library.governance, [what])
        law = held.law(what, epoch)
        value = cosigning.facts(held.statements[law.manifest_id], mesh.roster.policy[what])
        value |= {
            "admitted_by": held.admitted(law),
            "active_at": held.active(law),
            "begins": _begins(held, law, mesh.roster),
            "activations": [
                {**cosigning.facts(held.statements[identity], mesh.roster.policy[what])}
                for identity, _ in held.activations(what, law.manifest_id)
            ],
        }
        try:
            return value, await epochs.bundle(mesh, library, law.manifest.digest)
        except Refused as refusal:
            cli.say(f"{refusal.code}: {refusal.detail}")
            return value, None

    value, data = client.run(cli, work)
    bundle = read_bundle(data, digest=value["digest"]) if data is not None else None
    texts = _texts(bundle) if bundle is not None else {}
    value["sealed"] = _sealed(bundle) if bundle is not None else {}
    if cli.format == "table":
        _print(cli, value, texts)
    else:
        cli.value({**value, "policies": texts})
    cli.next(f"mesh policy diff {what}@{value['epoch']} FOLDER")


def _print(cli: Cli, value: dict[str, Any], texts: dict[str, str]) -> None:
    flat = {name: item for name, item in value.items() if name not in {"terms", "activations", "kind", "complete"}}
    flat |= {f"{name} is sealed for": auditors for name, auditors in flat.pop("sealed").items()}
    flat |= {f"terms of {name}": terms for name, terms in value["terms"].items()}
    for step in value["activations"]:
        flat[f"activation {step['sequence']}"] = [f"{regions} from {at}" for regions, at in step["rings"].items()]
    cli.value(flat)
    for text in texts.values():
        cli.lines([""])
        cli.text(text)


def _texts(bundle: Bundle) -> dict[str, str]:
    from mesh.adapters.cedar_child import policy_texts

    return {policy.id: text for policy, text in zip(bundle.policies, policy_texts(bundle), strict=True)}


def _sealed(bundle: Bundle) -> dict[str, list[str]]:
    """For whom each sealed parameter is, with the key."""
    keys = {auditor.name: auditor.key for auditor in bundle.auditors}
    return {
        f"{action.name} {param.name}": [f"{auditor} {keys.get(auditor, '?')}" for auditor in param.auditors]
        for action in bundle.actions
        for param in action.params
        if param.privacy == "sealed"
    }


def _role_of(statement: Statement[Said], roster: Roster) -> Role:
    claims = statement.claims
    if not isinstance(claims, Manifest | Activation):
        raise Refused("wrong_kind", "no manifest or activation")
    epochs.check_domain(roster, claims.domain)
    return roster.policy[claims.domain]
