"""Which records are meant: by who acted, what was asked, how it was decided. A record and the statements that it names say so themselves.

Rules
-----
1. Who acted is who signed what was recorded: the workload of a decision or a denial, the enforcer of an outcome or of a word on what it has
   heard. Governance, noise and incidents are nobody's act.
2. An action has who asked for it: only decisions and denials have one. A domain have outcomes too.
3. A denial without a decision is decided: deny.
4. A statement is found by the hash that the record names. What is withheld says nothing: :attr:`About.lacking` is true then.

Not here: reading records (:mod:`mesh.cli.backward`), printing them (:mod:`mesh.cli.listing`).
"""

from collections.abc import Mapping
from typing import Final, Literal, TypeVar, get_args

import msgspec

from mesh.core.bytes import envelope
from mesh.core.log.record import AttestRefused, DecisionMade, Denied, EnforcerHeard, Incident, Noise, OutcomeRecorded, Record
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Intent
from mesh.core.run.outcome import Aborted, Blocked, Outcome
from mesh.errors import Refused

__all__ = ["KINDS", "About", "Sieve", "about"]

KINDS: Final = tuple(sorted(str(kind.__struct_config__.tag) for kind in get_args(Record)))
"""The words that records begin with."""
Decided = Literal["", "permit", "deny"]
P = TypeVar("P", Intent, Outcome, Identity)


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a record says of itself; empty where it says nothing."""

    actor: str = ""
    """Whom the identity document of rule 1 names."""
    domain: str = ""
    action: str = ""
    effect: Decided = ""
    code: str = ""
    """Why it was denied, blocked, aborted, or what was wrong."""
    lacking: bool = False
    """Whether a statement that it names did not come with it."""


class Sieve(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for; empty means anything."""

    actor: str = ""
    """A subject, or what it begins with and a ``*``."""
    action: str = ""
    """A verb, or ``domain/verb``."""
    domain: str = ""
    effect: Decided = ""
    kind: str = ""
    code: str = ""

    @classmethod
    def of(cls, **asked: str | None) -> "Sieve":
        """As a command line says it.

        Raises:
            Refused: ``usage`` for a ``*`` that is not the last character.
        """
        sieve = msgspec.convert({name: value for name, value in asked.items() if value}, cls)
        if "*" in sieve.actor[:-1]:
            raise Refused("usage", f"--actor {sieve.actor[:80]!r}: a * stands for the rest, at the end")
        return sieve

    @property
    def reads(self) -> bool:
        """Whether it asks for something that stands in the statements that records name."""
        return bool(self.actor or self.action or self.domain or self.code)

    @property
    def bare(self) -> bool:
        """Whether of most records that are not meant the records alone say so."""
        return bool(self.actor or self.effect or self.kind or self.code) and not (self.action or self.domain)

    def may(self, record: Record, known: Mapping[str, str]) -> bool:
        """Whether the record could be meant, by what it says without the statements it names.

        Args:
            record: the record.
            known: identity documents that were read before, by id, to whom they name.
        """
        if self.actor and not self._acts(_actor(record, known)):
            return False
        if self.kind and record.__struct_config__.tag != self.kind:
            return False
        if self.effect and _effect(record) != self.effect:
            return False
        if self.action and not isinstance(record, DecisionMade | Denied):
            return False
        return not self.code or _code(record) in {None, self.code}

    def takes(self, said: About) -> bool:
        """Whether a record that :meth:`may` be meant is."""
        return (
            (not self.actor or (bool(said.actor) and self._acts(said.actor)))
            and (not self.action or self.action in {said.action, f"{said.domain}/{said.action}"})
            and (not self.domain or self.domain == said.domain)
            and (not self.code or self.code == said.code)
        )

    def _acts(self, actor: str | None) -> bool:
        """Whether it is who is meant, or could be because nobody knows yet who it is."""
        if actor is None or actor == self.actor:
            return True
        return self.actor.endswith("*") and actor.startswith(self.actor[:-1]) and actor != ""


def about(record: Record, bodies: Mapping[str, bytes]) -> About:
    """What ``record`` says of itself, with those of the statements it names that are among ``bodies`` (id to envelope)."""
    match record:
        case DecisionMade() | Denied():
            return _asked(record, bodies)
        case OutcomeRecorded(outcome=outcome, identity=identity):
            said, who = _read(Outcome, outcome, bodies), _read(Identity, identity, bodies)
            ended = said.event if said is not None else None
            return About(
                actor=who.subject if who is not None else "",
                domain=said.domain if said is not None else "",
                code=ended.code if isinstance(ended, Blocked | Aborted) else "",
                lacking=said is None or who is None,
            )
        case EnforcerHeard(subject=subject):
            return About(actor=subject)
        case Noise(code=code) | Incident(code=code):
            return About(code=code)
        case AttestRefused(refusal=refusal):
            return About(code=refusal.code)
        case _:
            return About()


def _asked(record: DecisionMade | Denied, bodies: Mapping[str, bytes]) -> About:
    intent, who = _read(Intent, record.intent, bodies), _read(Identity, record.identity, bodies)
    subject = record.subject if isinstance(record, Denied) else who.subject if who is not None else ""
    return About(
        actor=subject,
        domain=intent.domain if intent is not None else "",
        action=intent.action if intent is not None else "",
        effect=_effect(record),
        code=record.code if isinstance(record, Denied) else record.decision.code,
        lacking=intent is None or not subject,
    )


def _actor(record: Record, known: Mapping[str, str]) -> str | None:
    """Rule 1, without the document if it was read before; None if it was not."""
    match record:
        case Denied(subject=subject) | EnforcerHeard(subject=subject):
            return subject
        case DecisionMade(identity=identity) | OutcomeRecorded(identity=identity):
            return known.get(identity)
        case _:
            return ""


def _code(record: Record) -> str | None:
    """Its code; empty for none, None if only a statement says so."""
    match record:
        case Denied(code=code) | Noise(code=code) | Incident(code=code):
            return code
        case DecisionMade(decision=decision):
            return decision.code
        case AttestRefused(refusal=refusal):
            return refusal.code
        case OutcomeRecorded(event=event):
            return None if event in {"blocked", "aborted"} else ""
        case _:
            return ""


def _effect(record: Record) -> Decided:
    if isinstance(record, Denied):
        return "deny"
    return record.decision.effect if isinstance(record, DecisionMade) else ""


def _read(kind: type[P], identity: str, bodies: Mapping[str, bytes]) -> P | None:
    try:
        return envelope.read(kind, bodies[identity]).claims
    except (KeyError, Refused):
        return None
