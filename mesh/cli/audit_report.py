"""What an auditor says: each finding once, each alarm as it begins and ends, the numbers, and one exit status for all of it.

Rules
-----
1. A finding stays; an alarm stands as long as what it misses is missing. Both have a code of the registry.
2. The status is 5 if there is a finding, or an alarm whose code is worth that; 4 if an alarm stands that is worth less, or something
   that is known to be final could not be judged; else 0.
3. Where both halves of two histories of a log were seen, the proof is a file.
4. As lines of JSON each is a line of its own as it happens, with its ``kind``, and the numbers are the last line.

Not here: the auditor (:mod:`mesh.roles.auditor`), metrics (:mod:`mesh.cli.audit_metrics`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from mesh.cli import telling
from mesh.cli.collecting import whole_file
from mesh.cli.naming import Naming
from mesh.cli.output import Cli
from mesh.codes import CODES
from mesh.core.bytes.envelope import Statement
from mesh.core.law.proofs import AnyProof, encode_proof
from mesh.errors import MeshError, Refused
from mesh.protocol.alarms import Standing
from mesh.protocol.audited import AuditState, Finding, tally

__all__ = ["AuditReport", "status_of"]

_FOUND: Final = 5
_BEHIND: Final = 4


class AuditReport:
    """Talks while an auditor runs, and sums up."""

    def __init__(self, cli: Cli, proofs: Path | None = None) -> None:
        """Nothing was said yet; proofs against members are written into that folder, which is made now: not when there is one.

        Raises:
            Refused: ``config_invalid``.
        """
        try:
            if proofs is not None:
                proofs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refused("config_invalid", f"{proofs}: {error.strerror}") from None
        self._cli = cli
        self._proofs = proofs
        self._proven = set[str]()
        self.naming: Naming | None = None
        """What records are called by the rosters that are held; without it only the current logs are told apart."""
        self._said = set[Finding]()
        self._standing = set[Standing]()

    def findings(self, state: AuditState) -> None:
        """Say those that are new."""
        for finding in state.findings:
            if finding not in self._said:
                self._said.add(finding)
                row = self._finding(finding)
                self._cli.say(f"found {finding.code} at {row['record']}: {finding.detail}")
                self._line({"kind": "finding", "severity": "finding", **row})
        for proof in state.proofs if self._proofs is not None else ():
            if proof.id not in self._proven:
                self._proven.add(proof.id)
                self._prove(proof)

    def _prove(self, proof: Statement[AnyProof]) -> None:
        """Write it: named by the key, so that whoever audits again and again has one file for each."""
        file = (self._proofs or Path()) / f"fraud-{proof.claims.key[:16]}.json"
        with whole_file(file) as out:  # half of one would stand in the place of an older one
            out.write(encode_proof(proof))
        self._cli.say(
            f"{file}: proves that the key {proof.claims.key} signed two histories; `mesh fraud push {file}` hands it to the members"
        )

    def alarms(self, standing: Sequence[Standing]) -> None:
        """Say which alarms began, and which ended."""
        now = set(standing)
        for state, some in (("cleared", self._standing - now), ("raised", now - self._standing)):
            for item in sorted(some):
                row = self._alarm(item)
                self._cli.say(f"alarm {state}: {item.code} at {row['record']} since {row['since']}: {item.detail}")
                self._line({"kind": "alarm", "state": state, **row})
        self._standing = now

    def numbers(self, state: AuditState) -> None:
        """Say how far it is."""
        self._cli.say(", ".join(f"{name} {value}" for name, value in _numbers(state).items()))

    def trouble(self, error: MeshError) -> None:
        """Say what went wrong beside."""
        self._cli.say(str(error))

    def end(self, state: AuditState, standing: Sequence[Standing], *, caught_up: bool) -> int:
        """Sum up; the exit status."""
        behind = [
            {
                "log": log.origin,
                "record": log.ready,
                "final": log.goal,
                "held": max(log.wanted, log.held),
                "since": telling.when(log.pace.behind_ms) if log.pace.behind_ms else "",
            }
            for log in state.logs.values()
            if not log.caught_up or (not caught_up and log.held < log.wanted)
        ]
        for row in behind:
            since = f", since {row['since']}" if row["since"] else ""
            self._cli.say(f"{row['log']} could not be judged from record {row['record']} on{since}: {row['final']} are known to be final")
        self.findings(state)
        self.alarms(standing)
        value = {"caught_up": caught_up, **_numbers(state), "alarms_standing": len(standing)}
        found, alarms = [self._finding(finding) for finding in state.findings], [self._alarm(item) for item in standing]
        if self._cli.format == "table":
            self._cli.value({name.replace("_", " "): item for name, item in value.items()})
            if found:
                self._cli.rows(("code", "record", "detail"), found)
            if alarms:
                self._cli.rows(("code", "record", "since", "detail"), alarms)
        elif self._cli.format == "json":
            self._cli.value({**value, "findings": found, "found": state.found, "alarms": alarms, "behind": behind})
        else:
            self._line({"kind": "summary", **value, "found": state.found, "behind": behind})
        first = next((row["code"] for row in (*found, *alarms)), "")
        self._cli.next(f"mesh lineage show {found[0]['record']}" if found else f"mesh explain {first}" if first else "mesh status")
        return status_of(state, standing, caught_up=caught_up)

    def _line(self, value: dict[str, Any]) -> None:
        if self._cli.format == "jsonl":
            self._cli.value(value)

    def _finding(self, finding: Finding) -> dict[str, Any]:
        return {"code": finding.code, "record": self._place(finding.origin, finding.index), "detail": finding.detail}

    def _alarm(self, item: Standing) -> dict[str, Any]:
        severity = "tampering" if CODES[item.code].exit == _FOUND else "blind"
        place, since = self._place(item.origin, item.index), telling.when(item.since_ms)
        return {"code": item.code, "severity": severity, "record": place, "since": since, "detail": item.detail}

    def _place(self, origin: str, index: int) -> str:
        return self.naming.place(origin, index) if self.naming is not None else f"{telling.node_of(origin)}/{index}"


def status_of(state: AuditState, standing: Sequence[Standing], *, caught_up: bool) -> int:
    """Rule 2."""
    worth = max((CODES[item.code].exit for item in standing), default=0)
    return _FOUND if state.found else max(worth, 0 if caught_up else _BEHIND)


def _numbers(state: AuditState) -> dict[str, Any]:
    numbers = tally(state)
    return {
        "records": numbers.records,
        "final": numbers.final,
        "match": numbers.match,
        "mismatch": numbers.mismatch,
        "unverifiable": numbers.unverifiable,
        "starts_match": numbers.starts_match,
        "starts_mismatch": numbers.starts_mismatch,
        "starts_unverifiable": numbers.starts_unverifiable,
        "breakglass": numbers.breakglass,
        "pruned": numbers.pruned,
        "findings": numbers.findings,
        "garbage": numbers.garbage,
    }
