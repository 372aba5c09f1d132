"""Which enforcers have heard a statement, by their own signed words: each is verified here, with the document that names its key.

Rules
-----
1. All members are asked; of what they answer counts what an enforcer has signed whose document an issuer of the roster signed. A
   member can leave a word out, and no more.
2. An enforcer is its key, of which the newest word counts. One whose document is over starts nothing, and is not waited for.
3. An enforcer that a policy of the context names and that has said nothing is shown too: who is silent has not heard.

Not here: what members hold (:mod:`mesh.cli.gathering`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import click

from mesh.adapters.clock import wall_ms
from mesh.cli import telling
from mesh.cli.client import MeshClient
from mesh.cli.naming import Naming
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import reaches
from mesh.core.law.roster import Roster
from mesh.core.law.travel import Said, link_of
from mesh.core.messages import HeardAsked, HeardGiven, HeardWord
from mesh.core.run.heard import Heard, check_heard
from mesh.core.run.identity import Identity, check_identity, issued_by
from mesh.errors import MeshError, Refused

__all__ = ["Ears", "Roll", "Word", "call_roll", "check", "option"]

F = TypeVar("F", bound=Callable[..., Any])
_PAGES_MAX: Final = 1_000
"""Of one member: what all logs of a hundred members may hold. Whoever has more to say has lied."""
_LINGER_MS: Final = 1_000
"""After acknowledgement, for enforcers that have spoken before: they are told within milliseconds, and speak four times a second."""


class Word(NamedTuple):
    """What one enforcer said last."""

    subject: str
    claims: Heard
    id: str
    record: str
    """Where a member says that it is recorded: NODE/INDEX."""
    expires_ms: int
    """When its document is over."""

    @property
    def order(self) -> tuple[int, int, str]:
        """The larger, the newer."""
        return self.claims.at_ms, self.claims.sequence, self.id

    def covers(self, statement: Statement[Said], stream: str = "") -> bool:
        """Whether it promises to act by the statement, which is also in ``stream`` if that took it over."""
        own, link = link_of(statement)
        return any(reaches(self.claims.frontier, name, link.sequence, statement.id) for name in {own, stream or own})


class Roll(NamedTuple):
    """Every enforcer that is known."""

    words: Sequence[Word]
    silent: Sequence[str]
    """Subjects that a policy names and of whom no word is known."""

    def confirmed(self, statement: Statement[Said], stream: str = "") -> list[str]:
        """Subjects of the enforcers whose word covers the statement; an enforcer is its key, so one may stand here twice."""
        return [word.subject for word in self.words if word.covers(statement, stream)]

    def concerned(self, statement: Statement[Said]) -> list[Word]:
        """Words that cover it, and those of whoever may still start something (rule 2)."""
        now_ms = wall_ms()
        return [word for word in self.words if word.expires_ms > now_ms or word.covers(statement)]

    def count(self, statement: Statement[Said]) -> int:
        """How many distinct enforcers there are of whom it could be asked."""
        return len(self.concerned(statement)) + len(self.silent)


async def call_roll(mesh: MeshClient, governance: Governance) -> Roll:
    """Ask all members what enforcers said last (rules 1 and 3)."""
    return await _Listener(mesh, governance).roll()


class _Listener:
    """Asks again and again; what was verified once is not verified again."""

    def __init__(self, mesh: MeshClient, governance: Governance) -> None:
        self._mesh = mesh
        self._named = {subject for laws in governance.laws.values() for law in laws for subject in law.manifest.enforcers}
        self._known: dict[tuple[bytes, bytes], Word | None] = {}

    async def roll(self) -> Roll:
        found, seen = dict[str, Word](), dict[tuple[bytes, bytes], Word | None]()
        answers = await self._mesh.each(self._pages)
        for answer in answers.values():
            for item in [] if isinstance(answer, MeshError) else answer:
                key = bytes(item.heard), bytes(item.identity)
                if key not in seen:
                    seen[key] = self._known[key] if key in self._known else _believed(item, self._mesh.roster, self._mesh.naming)
                word = seen[key]
                if word is not None and (word.claims.enforcer not in found or found[word.claims.enforcer].order < word.order):
                    found[word.claims.enforcer] = word
        self._known = seen
        words = sorted(found.values(), key=lambda word: (word.subject, word.claims.enforcer))
        return Roll(words, sorted(self._named - {word.subject for word in words}))

    async def _pages(self, member: str) -> list[HeardWord]:
        words, after = list[HeardWord](), ""
        for _ in range(_PAGES_MAX):
            page = await self._mesh.ask(member, HeardAsked(after=after), HeardGiven)
            words += page.words
            if page.after <= after:
                break
            after = page.after
        return words


def _believed(item: HeardWord, roster: Roster, naming: Naming) -> Word | None:
    """Rule 1."""
    try:
        document = envelope.read(Identity, bytes(item.identity))
        place = issued_by(document, roster)
        said = envelope.read(Heard, bytes(item.heard))
        claims = check_heard(said, mesh=roster.mesh, document=document.id, key=place.key)
        check_identity(place, role="enforcer", subject=None, key=claims.enforcer, now_ms=claims.at_ms)
    except Refused:
        return None
    return Word(place.subject, claims, said.id, naming.place(item.origin, item.index), place.expires_ms)


class Ears:
    """Who has heard one statement, while it spreads."""

    def __init__(self, mesh: MeshClient, governance: Governance, statement: Statement[Said], needed: int) -> None:
        """Listen for words that cover ``statement``; ``needed`` enforcers are waited for, or 0."""
        self._listener = _Listener(mesh, governance)
        self._statement = statement
        self._roll: Roll = Roll((), ())
        self._looked = False
        self.needed = needed
        self.heard_ms: dict[str, int] = {}
        """Key to ms from offering until its word was seen."""

    @property
    def confirmed(self) -> list[str]:
        """Subjects of the enforcers that confirm it."""
        return self._roll.confirmed(self._statement)

    @property
    def lacking(self) -> list[str]:
        """Subjects of those that do not."""
        late = [word.subject for word in self._roll.concerned(self._statement) if not word.covers(self._statement)]
        return sorted([*late, *self._roll.silent])

    async def look(self, passed_ms: Callable[[], int]) -> None:
        """Ask once more."""
        self._roll, self._looked = await self._listener.roll(), True
        for word in self._roll.words:
            if word.covers(self._statement):
                self.heard_ms.setdefault(word.claims.enforcer, passed_ms())

    def enough(self, since_ms: int) -> bool:
        """Whether nobody need be waited for any more, so long after members acknowledged it."""
        if self.needed:
            return len(self.confirmed) >= self.needed
        late = any(not word.covers(self._statement) for word in self._roll.concerned(self._statement))
        return self._looked and (since_ms >= _LINGER_MS or not late)

    def told(self) -> str:
        """Who confirms it, in words."""
        return f"{len(self.confirmed)} enforcers confirm it" + (f", not {', '.join(self.lacking)}" if self.lacking else "")

    def rows(self) -> list[dict[str, Any]]:
        """All enforcers, with what each said last."""
        rows = [
            {
                "enforcer": word.subject,
                "key": word.claims.enforcer,
                "covers_ms": self.heard_ms.get(word.claims.enforcer) if word.covers(self._statement) else None,
                "said": telling.when(word.claims.at_ms),
                "boot": word.claims.boot,
                "sequence": word.claims.sequence,
                "id": word.id,
                "record": word.record,
            }
            for word in self._roll.concerned(self._statement)
        ]
        nothing: Mapping[str, Any] = dict.fromkeys(("key", "said", "boot", "id", "record"), "")
        return [*rows, *({"enforcer": subject, **nothing, "covers_ms": None, "sequence": 0} for subject in self._roll.silent)]


def option(command: F) -> F:
    """``--enforcers N``."""
    text = "With --watch: also wait until so many enforcers have signed that they start nothing of it."
    return click.option("--enforcers", default=0, metavar="N", type=click.IntRange(min=0), help=text)(command)


def check(enforcers: int, *, watch: bool) -> None:
    """That it was asked for what is waited for.

    Raises:
        Refused: ``usage``.
    """
    if enforcers and not watch:
        raise Refused("usage", "--enforcers waits, and so takes --watch")
