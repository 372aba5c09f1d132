"""The ``[bus]`` table of a configuration: where NATS is and how to log in. Secrets are files, never values.

Shared by nodes and by programs. Not here: the connection (:mod:`mesh.adapters.bus`).
"""

from pathlib import Path

import msgspec

from mesh.adapters.bus_options import BusOptions
from mesh.adapters.trustfiles import read_bounded
from mesh.errors import Refused

__all__ = ["BusTable", "bus_options"]

_SECRET_BYTES_MAX = 1_024


class BusTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Paths are relative to the file this stands in."""

    servers: list[str]
    user: str = ""
    password_file: str = ""
    nkey_file: str = ""
    creds_file: str = ""
    tls_ca: str = ""


def bus_options(table: BusTable, *, name: str, base: Path) -> BusOptions:
    """The options for the client ``name``.

    Raises:
        Refused: ``config_invalid`` when a secret cannot be read.
    """
    password = ""
    if table.password_file:
        try:
            password = read_bounded(base / table.password_file, _SECRET_BYTES_MAX).decode().strip()
        except UnicodeDecodeError:
            raise Refused("config_invalid", f"{table.password_file}: not text") from None
    return BusOptions(
        servers=tuple(table.servers),
        name=name,
        user=table.user,
        password=password,
        nkey_file=str(base / table.nkey_file) if table.nkey_file else "",
        creds_file=str(base / table.creds_file) if table.creds_file else "",
        tls_ca=str(base / table.tls_ca) if table.tls_ca else "",
    )
