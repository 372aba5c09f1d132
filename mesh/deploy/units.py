"""systemd units: a service that holds keys and one data folder, and may touch nothing else of its host.

Keys come as credentials. ``LoadCredential=`` may hand them over as files of root with an access list, which the signer refuses
because it cannot see who else is on that list; so the unit first copies them, private, into its own runtime folder.

What a process locks is its copy: of two units that copy one key, each has a file of its own, and only a shared data folder is noticed.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

__all__ = ["Unit", "unit_text"]

_HARDENING: Final = (
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "ProtectProc=invisible",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectControlGroups=yes",
    "PrivateDevices=yes",
    "PrivateTmp=yes",
    "LockPersonality=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "UMask=0077",
    "# A core file would hold keys.",
    "LimitCORE=0",
)


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """One service."""

    name: str
    """Of the service, its state folder and its runtime folder."""
    description: str
    credentials: Sequence[str]
    """Paths below /etc/govmesh of what only this service may read."""
    command: str


def unit_text(unit: Unit) -> str:
    """The unit file."""
    files = [path.rpartition("/")[2] for path in unit.credentials]
    copies = " ".join(f"${{CREDENTIALS_DIRECTORY}}/{file}" for file in files)
    lines = [
        "[Unit]",
        f"Description={unit.description}",
        "Wants=network-online.target time-sync.target",
        "After=network-online.target time-sync.target",
        "",
        "[Service]",
        "Type=simple",
        "DynamicUser=yes",
        f"StateDirectory={unit.name}",
        "StateDirectoryMode=0700",
        f"RuntimeDirectory={unit.name}",
        "RuntimeDirectoryMode=0700",
        *(f"LoadCredential={file}:/etc/govmesh/{path}" for file, path in zip(files, unit.credentials, strict=True)),
        "# A credential may arrive as a file of root with an access list; keys must be files of this user alone.",
        f"ExecStartPre=/usr/bin/install -m 0600 {copies} ${{RUNTIME_DIRECTORY}}",
        f"ExecStart={unit.command}",
        "Restart=on-failure",
        "RestartSec=2",
        "# Stopping drains: what was taken is answered, and the last records are certified.",
        "TimeoutStopSec=20",
        "",
        *_HARDENING,
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"
