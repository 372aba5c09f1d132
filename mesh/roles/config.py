"""A node's configuration file: who it is, where its files are, whom it trusts, what it shows to the outside.

What governs (bounds, quorums, policy) is signed and never stands here. Paths are relative to the file.
"""

from pathlib import Path

import msgspec

from mesh.adapters.bus_table import BusTable
from mesh.adapters.configfile import Located, load_located
from mesh.adapters.trustfiles import Trust

__all__ = ["NodeConfig", "NodeTable", "OutsideTable", "WitnessTable", "load_config"]


class NodeTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[node]`` table."""

    name: str
    """A member of the roster, which says its region and public keys."""
    data: str
    """Folder of its one SQLite file."""
    keys: str
    """Folder of ``log.key``, ``witness.key``, ``attest.key`` and ``decision.key``."""


class WitnessTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An external witness that is asked to cosign this node's published checkpoints. Its line never counts to a quorum."""

    url: str
    """Its submission prefix (C2SP tlog-witness): ``/add-checkpoint`` is appended."""
    vkey: str
    """Its key, as C2SP writes it: name+hex+base64, of type 4."""


class OutsideTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[outside]`` table: what people without any login of the mesh may see."""

    listen: str = ""
    """Where the log is served as C2SP tlog-tiles over plain HTTP, ``host:port``; without it there is no door."""
    witnesses: dict[str, WitnessTable] = {}
    """By a name of your own: lowercase letters, digits and hyphens."""


class NodeConfig(Located, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole ``node.toml``."""

    node: NodeTable
    bus: BusTable
    trust: Trust
    outside: OutsideTable = OutsideTable()


def load_config(path: Path) -> NodeConfig:
    """Read a node's configuration.

    Raises:
        Refused: ``config_invalid``, naming everything that is wrong.
    """
    return load_located(NodeConfig, path)
