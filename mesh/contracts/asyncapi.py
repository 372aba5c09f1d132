"""Who sends what on which subject, as an AsyncAPI 3 document; addresses are spelled by the code that uses them.

Only subjects that carry something today are here: ``RESERVED`` names the others.

Not here: what the messages look like (:mod:`mesh.contracts.jsonschema`).
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from mesh.adapters.streams import law_stream, lineage_stream
from mesh.contracts.yaml import to_yaml
from mesh.core import subjects

__all__ = ["CHANNELS", "RESERVED", "Channel", "asyncapi"]

RESERVED: Final = ("ctl", "law_stored", "quorum")
"""Subjects that are spelled in the code and carry nothing yet."""


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """One subject."""

    name: str
    """Also the function of :mod:`mesh.core.subjects` that spells it."""
    spell: Callable[..., str]
    tokens: tuple[str, ...]
    sender: str
    receiver: str
    summary: str
    message: str
    """File of the payload's schema; empty for a C2SP note, which is text."""
    others: tuple[str, ...] = ()
    """Files of other payloads that it may carry instead."""
    replies: tuple[str, ...] = ()
    queue: str = ""
    stream: str = ""

    @property
    def address(self) -> str:
        """The subject with ``{token}`` for each token."""
        spelled = self.spell(*(f"t{index}" for index in range(len(self.tokens))))
        return ".".join(_place(part, self.tokens) for part in spelled.split("."))


def _place(part: str, tokens: tuple[str, ...]) -> str:
    return f"{{{tokens[int(part[1:])]}}}" if part[0] == "t" and part[1:].isdigit() else part


CHANNELS: Final = (
    Channel(
        name="intent",
        spell=subjects.intent,
        tokens=("region", "tenant", "workload"),
        sender="workload",
        receiver="governor",
        summary="A signed intent; the answer is an authorization that names its record, or a denial. Never stored.",
        message="message/IntentRequest",
        replies=("message/Answer",),
        queue="gov-{region}",
    ),
    Channel(
        name="outcome",
        spell=subjects.outcome,
        tokens=("region", "enforcer"),
        sender="enforcer",
        receiver="governor",
        summary="What happened, oldest first; sent until the receipts' records are final. And what the enforcer has heard.",
        message="message/OutcomeRequest",
        others=("message/HeardRequest",),
        replies=("message/OutcomeAnswer", "message/RefusedAnswer"),
        queue="gov-{region}",
    ),
    Channel(
        name="lineage",
        spell=subjects.lineage,
        tokens=("region", "node"),
        sender="governor",
        receiver="governor, auditor",
        summary="Consecutive records of the node's own log with the statements they are about, and its checkpoint: *recorded*.",
        message="message/LineageBatch",
        stream=lineage_stream("{region}"),
    ),
    Channel(
        name="checkpoint",
        spell=subjects.checkpoint,
        tokens=("region", "node"),
        sender="governor",
        receiver="governor, auditor",
        summary="A signed checkpoint of the node's own log, or its certificate, by which its records are *final*: a C2SP signed note.",
        message="",
        stream=lineage_stream("{region}"),
    ),
    Channel(
        name="cosig",
        spell=subjects.cosig,
        tokens=("region", "node"),
        sender="governor",
        receiver="governor",
        summary="A checkpoint of that node's log with the sender's witness and attest lines, by which it is *witnessed*: a C2SP note.",
        message="",
        stream=lineage_stream("{region}"),
    ),
    Channel(
        name="fraud",
        spell=subjects.fraud,
        tokens=("region", "node"),
        sender="governor",
        receiver="governor",
        summary="That node's refusal to attest a record of another log; said again until its owner is caught. f + 1 of them are a proof.",
        message="message/Accusation",
        stream=law_stream("{region}"),
    ),
    Channel(
        name="hb",
        spell=subjects.hb,
        tokens=("node",),
        sender="governor",
        receiver="governor, enforcer, auditor",
        summary="A heartbeat: the envelope itself. Bound by no stream: an old one vouches for nothing.",
        message="envelope",
    ),
    Channel(
        name="law",
        spell=subjects.law,
        tokens=("stream",),
        sender="governor",
        receiver="governor, enforcer, auditor",
        summary="Governance statements as a governor took them in, verified: the fast path. Whoever misses one asks a governor for it.",
        message="message/LawBatch",
    ),
    Channel(
        name="sync",
        spell=subjects.sync,
        tokens=("node",),
        sender="governor, enforcer, auditor, workload",
        receiver="governor",
        summary="Questions to one node: a heartbeat of now, what the asker has signed, records, proofs, status; and offers of governance "
        "statements. Answers are believed for what is signed in them.",
        message="message/Asked",
        replies=(
            "message/SyncAnswer",
            "message/BarrierAnswer",
            "message/LineageBatch",
            "message/LawBatch",
            "message/Offered",
            "message/Found",
            "message/HeardGiven",
            "message/Proved",
            "message/NodeStatus",
            "message/RefusedAnswer",
        ),
    ),
)
_ABOUT: Final = """\
Everything that matters inside is signed; a subject proves nothing about a message. NATS may delay, drop, repeat and reorder.
Tokens are [a-z0-9-]{1,32}; no region is called ctl, hb, law or sync. Answers go to the reply subject, which must be an inbox
(_INBOX…). Reserved and unused today: mesh.v1.<region>.quorum and .law, mesh.v1.ctl."""
_TOKENS: Final = {
    "region": "Region of the governors that are asked, or of the node.",
    "tenant": "Whose workload it is: an account of the NATS server.",
    "workload": "Name of the caller; governors believe the identity document, not this.",
    "enforcer": "Name of the enforcer; governors believe the signature, not this.",
    "node": "Name of the governor in the roster.",
    "stream": "The first 26 characters of the lowercase base32 of SHA-256 over the stream's name.",
}


def asyncapi() -> bytes:
    """The document."""
    document: dict[str, Any] = {
        "asyncapi": "3.0.0",
        "info": {"title": "govmesh", "version": "1", "description": _ABOUT, "license": {"name": "Apache-2.0"}},
        "defaultContentType": "application/json",
        "channels": {name: described for channel in CHANNELS for name, described in _channels(channel)},
        "operations": {f"{verb}-{channel.name}": _operation(channel, verb) for channel in CHANNELS for verb in ("send", "receive")},
        "components": {"messages": _messages()},
    }
    return to_yaml(document).encode()


def _channels(channel: Channel) -> Iterator[tuple[str, dict[str, Any]]]:
    described: dict[str, Any] = {
        "address": channel.address,
        "summary": channel.summary,
        "parameters": {token: {"description": _TOKENS[token]} for token in channel.tokens},
        "messages": _referred("#/components", channel.message, *channel.others),
    }
    yield channel.name, described | ({"x-stream": channel.stream} if channel.stream else {})
    if channel.replies:
        yield f"{channel.name}-reply", {"address": None, "messages": _referred("#/components", *channel.replies)}


def _operation(channel: Channel, verb: str) -> dict[str, Any]:
    at = f"#/channels/{channel.name}"
    operation: dict[str, Any] = {
        "action": verb,
        "channel": {"$ref": at},
        "summary": f"By: {channel.sender if verb == 'send' else channel.receiver}.",
        "messages": list(_referred(at, channel.message, *channel.others).values()),
    }
    if verb == "receive" and channel.queue:
        operation["bindings"] = {"nats": {"queue": channel.queue}}
    if channel.replies:
        operation["reply"] = {"channel": {"$ref": f"{at}-reply"}, "messages": list(_referred(f"{at}-reply", *channel.replies).values())}
    return operation


def _referred(at: str, *files: str) -> dict[str, Any]:
    return {_name(file): {"$ref": f"{at}/messages/{_name(file)}"} for file in files}


def _messages() -> dict[str, Any]:
    files = dict.fromkeys(name for channel in CHANNELS for name in (channel.message, *channel.others, *channel.replies))
    note = {"contentType": "text/plain; charset=utf-8", "summary": "A C2SP signed note.", "payload": {"type": "string"}}
    return {_name(name): {"payload": {"$ref": f"./{name}.schema.json"}} if name else note for name in files}


def _name(file: str) -> str:
    return file.rpartition("/")[2] or "note"
