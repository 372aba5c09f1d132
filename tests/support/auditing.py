"""An auditor of a little mesh whose pulls are answered at once, and a mesh in which enforcers say what a test wants."""

from collections.abc import Iterable, Sequence

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.messages import Authorized, Pull
from mesh.core.run.outcome import Event, Finished, Outcome
from mesh.protocol.alarms import PATIENT, Patience, Standing
from mesh.protocol.audit import Audit
from mesh.protocol.audited import AuditEvent, AuditPosition, AuditState, MembersTold, PullFailed
from mesh.protocol.events import LineageArrived, NoteArrived, Tick
from mesh.protocol.step import Ask
from tests.support.factory import Lab, sign
from tests.support.littlemesh import LittleMesh

__all__ = ["DONE", "Auditing", "Enforcing", "events_of", "kept"]

DONE = Finished(status=0, outputs=[], duration_ms=5)
DOWN: frozenset[str] = frozenset()


def events_of(stream: Iterable[tuple[str, bytes]]) -> list[AuditEvent]:
    """What a stream holds, as an auditor takes it."""
    kinds = [(subject.split(".")[3], data) for subject, data in stream]
    return [
        LineageArrived(data, pulled=False) if kind == "lineage" else NoteArrived(data)
        for kind, data in kinds
        if kind in {"lineage", "checkpoint"}
    ]


class Auditing:
    """An auditor with pulls that are answered at once."""

    def __init__(self, mesh: LittleMesh, position: AuditPosition | None = None, *, down: frozenset[str] = DOWN) -> None:
        self.mesh, self.down = mesh, down
        self.audit = Audit(mesh.lab.governance, mesh.lab.engine)
        self.state: AuditState = self.audit.begin(position)
        self.now_ms = mesh.now_ms
        self.asked: list[str] = []

    def feed(self, events: Sequence[AuditEvent]) -> "Auditing":
        for event in events:
            self.state = self.audit.step(self.state, [event], now_ms=self.now_ms).state
        return self

    def pull(self, rounds: int = 12) -> "Auditing":
        for _ in range(rounds):
            self.now_ms += 400
            step = self.audit.step(self.state, [Tick()], now_ms=self.now_ms)
            self.state = step.state
            for ask in step.effects:
                assert isinstance(ask, Ask)
                self.asked.append(ask.member)
                self.feed([self._answer(ask.member, ask.origin, ask.first)])
        return self

    def ask_all(self) -> "Auditing":
        """Ask every member how it is; who is down does not answer."""
        up = {name: node.status() for name, node in self.mesh.nodes.items() if node.up and name not in self.down}
        return self.feed([MembersTold(up)])

    def _answer(self, member: str, origin: str, first: int) -> AuditEvent:
        if member in self.down:
            return PullFailed(origin)
        pull = Pull(origin=origin, first=first, count=128)
        return LineageArrived(self.mesh.nodes[member].pulled(pull), pulled=True)

    def standing(self, *, after_ms: int = 0, patience: Patience = PATIENT) -> list[Standing]:
        """The alarms that stand so much later."""
        return self.audit.standing(self.state, now_ms=self.now_ms + after_ms, patience=patience)

    def alarms(self, *, after_ms: int = 0, patience: Patience = PATIENT) -> list[str]:
        """Their codes."""
        return [item.code for item in self.standing(after_ms=after_ms, patience=patience)]

    @property
    def counts(self) -> tuple[int, int, int]:
        logs = self.state.logs.values()
        return sum(log.match for log in logs), sum(log.mismatch for log in logs), sum(log.unverifiable for log in logs)

    @property
    def codes(self) -> list[str]:
        return [finding.code for finding in self.state.findings]

    @property
    def done(self) -> bool:
        logs = self.state.logs
        return all(log.caught_up for log in logs.values()) and all(
            logs[node.origin].certified == len(node.logs[node.origin]) for node in self.mesh.nodes.values()
        )


def kept(auditing: Auditing) -> AuditPosition:
    """What its file holds."""
    return canonical.decode(AuditPosition, canonical.encode(auditing.audit.position(auditing.state)), bytes_max=10**7)


class Enforcing:
    """A mesh, and an enforcer whose outcomes go wherever the test says; each names the one before it."""

    def __init__(self) -> None:
        self.lab = Lab()
        self.mesh = LittleMesh(self.lab)
        self._number = 0
        self.previous: dict[str, tuple[int, str]] = {}
        """Boot to the number and id of its last outcome."""

    def permit(self, *governors: str) -> tuple[str, ...]:
        """An intent that these governors permit: its id, and that of the authorization of each; by default one of eu-1."""
        self._number += 1
        name, intent, openings = self.lab.intent(self._number, at_ms=self.mesh.now_ms)
        answers = [self.mesh.request(at, self.lab.request(intent, openings)) for at in governors or ("eu-1",)]
        return name, *(envelope.identify(bytes(answer.authorization))[1] for answer in answers if isinstance(answer, Authorized))

    def say(self, intent: str, authorization: str, event: Event, *, boot: str = "b0" * 32, **changed: object) -> bytes:
        """The enforcer's next outcome."""
        number, previous = self.previous.get(boot, (-1, ""))
        first = self.lab.outcome(intent, authorization, event, sequence=number + 1, previous=previous, at_ms=self.mesh.now_ms)
        claims = msgspec.structs.replace(envelope.read(Outcome, first).claims, boot=boot, **changed)
        said = sign(claims, self.lab.place_key)
        self.previous[boot] = number + 1, envelope.identify(said)[1]
        return said

    def lived(self, intent: str, authorization: str) -> list[bytes]:
        """Started, and finished."""
        return [self.say(intent, authorization, self.lab.started()), self.say(intent, authorization, DONE)]

    def report(self, at: str, *outcomes: bytes) -> None:
        """Outcomes reach a governor."""
        if outcomes:
            self.mesh.report(at, self.lab.report(list(outcomes)))

    def audited(self, position: AuditPosition | None = None) -> Auditing:
        """An auditor that has seen all that is final by now."""
        self.mesh.run(6)
        return Auditing(self.mesh, position).feed(events_of(self.mesh.stream)).pull()
