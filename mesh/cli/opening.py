"""`mesh lineage open`: an auditor opens what was sealed for it, and learns whether who asked has sealed what they signed.

Rules
-----
1. The intent is believed by its id, its holder's signature, and the document by which an issuer gave that holder its key; so the seals
   and commitments in it are the word of who is named. Who the issuers are a roster says: of a proof without ``--trust`` nobody knows.
2. Whoever serves a box can spoil it: what is not the box that the intent names is asked of the next member. Only a box that is exactly
   the one named can show that who asked has lied.
3. The key is used here and nowhere else; what was opened goes to standard output and is kept by nobody.

Not here: boxes (:mod:`mesh.core.run.sealed`), whether the record is final (`mesh lineage show`, `mesh verify`).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from mesh.adapters.signer import load_seal
from mesh.adapters.trustfiles import read_bounded
from mesh.cli import client
from mesh.cli.output import Cli, format_option, pass_cli
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.sealkeys import SealKey
from mesh.core.law.governance import Governance
from mesh.core.log.bundle import read_proof
from mesh.core.log.record import DecisionMade, read_record
from mesh.core.messages import Prove, Proved
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Intent
from mesh.core.run.sealed import Box, open_box, told
from mesh.errors import MeshError, Refused
from mesh.limits import ENVELOPE_BYTES_MAX, PROOF_BUNDLE_BYTES_MAX
from mesh.protocol.documents import Documents
from mesh.protocol.examine import authenticate
from mesh.protocol.proving import bodies_of, by_id, record_of
from mesh.verify import verify

__all__ = ["open_"]

_SPOILT = frozenset({"box_malformed", "box_mismatch"})


@click.command("open")
@click.argument("name", metavar="[ID|NODE/INDEX]", required=False)
@click.option("--key", "key_file", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Your key of the use auditor-seal.")
@click.option("--from", "proof", type=click.Path(dir_okay=False, path_type=Path), help="Open what is in this proof; no mesh is asked.")
@click.option("--trust", type=click.Path(dir_okay=False, path_type=Path), help="With --from: judge the proof by this roster first.")
@format_option
@pass_cli
def open_(cli: Cli, name: str | None, key_file: Path, proof: Path | None, trust: Path | None) -> None:
    """Open the sealed parameters of an intent with an auditor's key.

    Ends with 5 if a box that the signed intent names does not hold what the intent commits to: then who asked has lied.
    """
    if (name is None) == (proof is None):
        raise Refused("usage", "an ID, or --from a proof: one of them")
    if trust is not None and proof is None:
        raise Refused("usage", "--trust is for a proof; of a mesh the context says what is trusted")
    key = load_seal(key_file)
    if proof is not None:
        intent, boxes = _in_file(proof, trust)
        rows, refusal = _opened(intent, [boxes], key)
    else:
        intent, held = client.run(cli, lambda mesh, library: _asked(mesh, library.governance, name or ""))
        rows, refusal = _opened(intent, held, key)
    cli.rows(("parameter", "value", "auditor", "code"), rows)
    if proof is not None and trust is None:
        cli.say(
            f"whose key {intent.claims.holder[:12]}… is says only the file: `mesh verify {proof} --trust ROSTER` before you blame anybody"
        )
    if refusal is not None:
        raise refusal
    cli.say(f"{len(rows)} opened, each as intent {intent.id[:12]} of {intent.claims.subject} commits to it")
    cli.next(f"mesh verify {proof} --trust ROSTER" if proof is not None else f"mesh prove {name} -o proof.json")


def _opened(intent: Statement[Intent], held: Iterable[list[Box]], key: SealKey) -> tuple[list[dict[str, Any]], Refused | None]:
    """Every parameter that is sealed for this key, and the first reason why one did not open."""
    claims, sources = intent.claims, list(held)
    mine = {name: seal for name, seals in sorted(claims.sealed.items()) for seal in seals if seal.key == key.public}
    if not mine:
        who = told(claims.sealed)
        raise Refused("not_sealed_for", f"key {key.public[:12]}…; sealed are: {who}" if who else "nothing in this intent is sealed")
    rows, first = list[dict[str, Any]](), None
    for name, seal in mine.items():
        row: dict[str, Any] = {"parameter": name, "auditor": seal.auditor, "value": "", "code": ""}
        try:
            row["value"] = _open(claims, sources, name, key)
        except Refused as refusal:
            row["code"], first = refusal.code, first or refusal
        rows.append(row)
    return rows, first


def _open(claims: Intent, sources: list[list[Box]], name: str, key: SealKey) -> object:
    spoilt = Refused("box_mismatch", f"no box of {name} is here: it was erased, or who answers does not show it")
    for boxes in sources:
        try:
            return open_box(claims.sealed, claims.committed, boxes, name, key, holder=claims.holder).value
        except Refused as refusal:
            if refusal.code not in _SPOILT:
                raise
            spoilt = refusal if boxes else spoilt
    raise spoilt


async def _asked(mesh: client.MeshClient, governance: Governance, name: str) -> tuple[Statement[Intent], list[list[Box]]]:
    """The signed intent, and the boxes as each member shows them."""
    answers = await mesh.execution(name)
    made = next((record for record in map(record_of, answers) if isinstance(record, DecisionMade)), None)
    if made is None:
        raise Refused("not_found", f"no decision on {name[:64]} is recorded: of what was not decided, no box is kept")
    place, shown = Prove(origin=made.origin, index=made.index), list[list[Box]]()
    for answer in (await mesh.each(lambda member: mesh.ask(member, place, Proved))).values():
        if not isinstance(answer, MeshError):
            shown += [item.boxes for item in answer.batch.openings if item.intent == made.intent]
    bodies = {key: data for answer in answers for key, data in bodies_of(answer).items()}
    intent = _intent(made.intent, bodies)
    authenticate(bodies[made.intent], bodies[intent.claims.identity], governance, Documents(), former=True)
    return intent, shown


def _in_file(path: Path, trust: Path | None) -> tuple[Statement[Intent], list[Box]]:
    data = read_bounded(path, PROOF_BUNDLE_BYTES_MAX)
    proof = read_proof(data)
    if trust is not None:
        report = verify(data, trust=read_bounded(trust, ENVELOPE_BYTES_MAX))
        for check in report.checks:
            if check.result == "failed":
                raise Refused(check.code, f"{path} proves nothing: {check.name}")
    record = read_record(bytes(proof.record))
    if not isinstance(record, DecisionMade):
        raise Refused("not_found", f"{path} proves no decision: of nothing else boxes are kept")
    return _intent(record.intent, by_id(proof.bodies)), proof.boxes


def _intent(name: str, bodies: dict[str, bytes]) -> Statement[Intent]:
    if name not in bodies:
        raise Refused("not_found", "no member that answers holds the text of the intent")
    statement = envelope.read(Intent, bodies[name])
    claims = statement.claims
    if not statement.sealed_by((claims.holder,)):
        raise Refused("bad_signature", f"intent {name[:12]} is not signed by its holder: it is nobody's word")
    if claims.identity not in bodies:
        raise Refused("not_found", f"the document of {claims.subject} is not here: whose word the intent is cannot be told")
    document = envelope.read(Identity, bodies[claims.identity]).claims
    if (document.subject, document.key) != (claims.subject, claims.holder):
        raise Refused("identity_mismatch", f"intent {name[:12]} says {claims.subject}, and is signed by another key than the document's")
    return statement
