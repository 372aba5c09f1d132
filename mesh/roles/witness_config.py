"""A witness's configuration file: its name and key, where it listens, and which logs it watches.

Logs come from three places: keys written down here, C2SP policy files, and rosters of meshes, whose members' logs are all watched.
Paths are relative to the file. Not here: what a witness does (:mod:`mesh.roles.witness`).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from mesh.adapters.configfile import Located, load_located
from mesh.adapters.trustfiles import Trust, load_trust, read_bounded
from mesh.core.log.checkpoint import log_verifier
from mesh.core.log.note import SignatureType, Verifier
from mesh.core.log.tlogpolicy import read_logs
from mesh.errors import Refused
from mesh.limits import TLOG_POLICY_BYTES_MAX, WITNESS_LOGS_MAX

__all__ = ["MeshTable", "WitnessConfig", "WitnessNodeTable", "load_witness_config", "watched"]


class WitnessNodeTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[witness]`` table."""

    name: str
    """Its key name, which stands in every line: by custom an address without scheme."""
    key: str
    """File of its key, made with ``mesh key gen PATH --use witness``. No other witness may have it."""
    data: str
    """Folder of its one SQLite file, which is never put back from a copy."""
    listen: str
    """Where it answers add-checkpoint over plain HTTP, ``host:port``. What serves outsiders puts TLS in front."""


class MeshTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mesh whose members' logs are watched."""

    roster: str
    """Envelope of a roster."""
    pin: str
    """Its statement id, lowercase hex."""
    later: list[str] = []
    """Envelopes of the rosters that follow it, oldest first."""


class WitnessConfig(Located, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole ``witness.toml``."""

    witness: WitnessNodeTable
    logs: list[str] = msgspec.field(default_factory=list[str])
    """Keys of logs as C2SP writes them, name+hex+base64; the name is the log's origin."""
    policies: list[str] = msgspec.field(default_factory=list[str])
    """C2SP tlog-policy files, whose logs are watched."""
    meshes: dict[str, MeshTable] = msgspec.field(default_factory=dict[str, MeshTable])
    """By a name of your own."""


def load_witness_config(path: Path) -> WitnessConfig:
    """Read a witness's configuration.

    Raises:
        Refused: ``config_invalid``, naming everything that is wrong.
    """
    return load_located(WitnessConfig, path)


def watched(config: WitnessConfig) -> dict[str, tuple[Verifier, ...]]:
    """Every origin that is watched, with the keys that may sign for it.

    Raises:
        Refused: ``config_invalid``: one key under two origins, two keys that look alike in a line, too many logs, none at all;
            otherwise what is wrong with a file.
    """
    found = dict[str, dict[Verifier, None]]()
    for verifier in _named(config):
        found.setdefault(verifier.name, {})[verifier] = None
    every = [verifier for keys in found.values() for verifier in keys]
    if not 0 < len(found) <= WITNESS_LOGS_MAX:
        raise Refused("config_invalid", f"{len(found)} logs to watch, of 1 to {WITNESS_LOGS_MAX}")
    if len({verifier.key for verifier in every}) != len(every) or len({(verifier.name, verifier.key_id) for verifier in every}) != len(
        every
    ):
        raise Refused("config_invalid", "one key stands there for two logs, or two keys have one name and id")
    return {origin: tuple(keys) for origin, keys in found.items()}


def _named(config: WitnessConfig) -> Iterable[Verifier]:
    for text in config.logs:
        try:
            verifier = Verifier.from_vkey(text)
        except Refused as refusal:
            raise Refused("config_invalid", f"logs: {text[:80]!r}: {refusal}") from None
        if verifier.kind is not SignatureType.PLAIN:
            raise Refused("config_invalid", f"logs: {text[:80]!r} is no log's key")
        yield verifier
    for name in config.policies:
        yield from read_logs(read_bounded(config.path(name), TLOG_POLICY_BYTES_MAX))
    for table in config.meshes.values():
        yield from _members(table, config.path("."))


def _members(table: MeshTable, base: Path) -> Iterable[Verifier]:
    trust = Trust(roster=table.roster, pin=table.pin, policy=[], statements=table.later)
    logs: Mapping[str, Verifier] = {
        origin: log_verifier(origin, member.log_key)
        for roster in load_trust(trust, base).rosters.chain
        for member in roster.members
        for origin in [roster.origin(member)]
    }
    return logs.values()
