"""A governor's storage in a folder of its own, and put back: only whole, only where it belongs, never over what is there.

Rules
-----
1. A backup is a folder: ``node.db`` as it was at one commit, ``manifest.json`` that says what is in it, and ``keys`` only if they
   were asked for. It is made beside its place, looked at whole, synced, and then renamed: a folder of that name is complete.
2. Whoever reads one believes nothing but what it has looked at: the bytes by the manifest, then the file as
   :func:`mesh.adapters.storecheck.check_file` does, then that file and manifest say the same. A manifest is unsigned: it is against
   rot and mistakes, and a forged backup is no more than an old one (rule 5).
3. It goes back to the node, the mesh and the keys that it came from, and to no other.
4. Putting back holds the lock of the folder, so no node runs there. What is there already is moved aside, never overwritten, and
   all is verified before anything is moved. Killed in between it leaves a folder without ``node.db``: what starts there is a node
   that lost its disk.
5. That it is old is no danger: whoever starts on it asks the other members first what it has signed since, and signs nothing
   before (:mod:`mesh.protocol.barrier`).

Not here: reading the file (:mod:`mesh.adapters.storecheck`), what a node does with an old one.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import blake3
import msgspec

from mesh.adapters.durable import sync_folder
from mesh.adapters.signer import load
from mesh.adapters.store import hold
from mesh.adapters.storecheck import Held, check_file, copy_file
from mesh.adapters.trustfiles import load_trust, read_bounded
from mesh.errors import Alarm, Refused, Unavailable
from mesh.limits import MESSAGE_BYTES_MAX
from mesh.protocol.step import KeyUse
from mesh.roles.config import NodeConfig

__all__ = ["Manifest", "back_up", "check_backup", "check_running", "restore"]

FILE: Final = "node.db"
_MANIFEST: Final = "manifest.json"
_KEYS: Final = "keys"
_USES: Final[tuple[KeyUse, ...]] = ("log", "witness", "attest", "decision")
_BESIDE: Final = ("-wal", "-shm")
"""What SQLite keeps beside a file: it belongs to that very file."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a backup says of itself."""

    v: Literal[1]
    kind: Literal["node-backup"]
    mesh: str
    node: str
    made_ms: int
    """Wall clock, ms since the epoch."""
    bytes: int
    """Of ``node.db``."""
    digest: str
    """``blake3:<hex>`` of it."""
    public: dict[KeyUse, str]
    """The node's public keys, hex."""
    with_keys: bool
    held: Held


async def back_up(config: NodeConfig, folder: Path, *, with_keys: bool, now_ms: int) -> Manifest:
    """Copy the storage of that node, which may run, to the new ``folder`` (rule 1).

    Raises:
        Refused: ``data_exists``: the folder is there; ``config_invalid``; ``not_found``: there is no storage.
        Unavailable: ``storage_failed``.
        Alarm: ``storage_corrupt``, ``storage_rolled_back``: what the node has is not as it was written, or less than it signed.
    """
    source = _data(config) / FILE
    if not source.exists():
        raise Refused("not_found", f"{source}")
    if folder.exists():
        raise Refused("data_exists", f"{folder}")
    public = _public(config.path(config.node.keys))
    with _made_beside(folder) as fresh:
        copy_file(source, fresh / FILE)
        manifest = Manifest(
            v=1,
            kind="node-backup",
            mesh=load_trust(config.trust, config.path(".")).roster.mesh,
            node=config.node.name,
            made_ms=now_ms,
            bytes=(fresh / FILE).stat().st_size,
            digest=_digest(fresh / FILE),
            public=public,
            with_keys=with_keys,
            held=await check_file(fresh / FILE, still=True),
        )
        _check_whose(manifest)
        if with_keys:
            _copy_keys(config.path(config.node.keys), fresh / _KEYS)
        _write(fresh / _MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    return manifest


async def check_backup(folder: Path) -> Manifest:
    """Look at everything in a backup (rule 2).

    Raises:
        Refused: ``config_invalid``: it is none.
        Alarm: ``storage_corrupt``: it is not as it was made.
    """
    manifest = _manifest(folder)
    file = folder / FILE
    try:
        found = (file.stat().st_size, _digest(file))
    except OSError as error:
        raise Refused("config_invalid", f"{file}: {error.strerror}") from None
    if found != (manifest.bytes, manifest.digest):
        raise Alarm("storage_corrupt", f"{file} has {found[0]} bytes and {found[1]}; {manifest.bytes} and {manifest.digest} were written")
    if await check_file(file, still=True) != manifest.held:
        raise Alarm("storage_corrupt", f"{file} holds something else than its manifest says")
    _check_whose(manifest)
    if manifest.with_keys and _public(folder / _KEYS) != manifest.public:
        raise Alarm("storage_corrupt", f"{folder / _KEYS} are not the keys that the manifest names")
    return manifest


async def check_running(config: NodeConfig) -> Held:
    """Look at everything that the node's own storage holds, whether it runs or not. Raises as :func:`check_file`."""
    file = _data(config) / FILE
    if not file.exists():
        raise Refused("not_found", f"{file}")
    held = await check_file(file, still=False)
    if held.owner != config.node.name:
        raise Refused("backup_foreign", f"{file} belongs to {held.owner}, not to {config.node.name}")
    return held


async def restore(config: NodeConfig, folder: Path, *, replace: bool, with_keys: bool, now_ms: int) -> tuple[Manifest, Path | None]:
    """Put a backup back (rules 3 and 4); what it says, and where the former storage lies now, if there was any.

    Raises:
        Unavailable: ``node_running``, ``storage_failed``.
        Refused: ``backup_foreign``, ``data_exists``; ``config_invalid`` for what is no backup, or has no keys that were asked for;
            ``key_exists`` where other keys are.
        Alarm: ``storage_corrupt``.
    """
    data = _data(config)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = hold(data / f"{FILE}.lock")
    if lock is None:
        raise Unavailable("node_running", f"{data}")
    try:
        former = [path for path in (data / f"{FILE}{end}" for end in ("", *_BESIDE)) if path.exists()]
        if former and not replace:
            raise Refused("data_exists", f"{data / FILE}")
        manifest = await check_backup(folder)
        _check_home(config, manifest, folder, with_keys=with_keys)
        fresh = data / f"{FILE}.restored"
        _copy(folder / FILE, fresh)
        if _digest(fresh) != manifest.digest:
            raise Alarm("storage_corrupt", f"{fresh} is not what was written: this disk fails")
        if with_keys:
            _put_keys(folder / _KEYS, config.path(config.node.keys))
        aside = _set_aside(data, former, now_ms)
        fresh.rename(data / FILE)
        sync_folder(data)
    except OSError as error:
        raise Unavailable("storage_failed", f"{error.filename}: {error.strerror}") from None
    finally:
        os.close(lock)
    return manifest, aside


def _check_whose(manifest: Manifest) -> None:
    """That the file is the node's and of that mesh."""
    held = manifest.held
    if held.owner != manifest.node:
        raise Refused("backup_foreign", f"the file belongs to {held.owner}, not to {manifest.node}")
    strangers = [log.origin for log in held.logs if log.origin.split("/")[0] != manifest.mesh]
    if strangers:
        raise Refused("backup_foreign", f"it holds {strangers[0]}, which is no log of {manifest.mesh}")


def _check_home(config: NodeConfig, manifest: Manifest, folder: Path, *, with_keys: bool) -> None:
    """Rule 3."""
    roster = load_trust(config.trust, config.path(".")).roster
    if (manifest.mesh, manifest.node) != (roster.mesh, config.node.name):
        raise Refused("backup_foreign", f"{folder} is of {manifest.node} in {manifest.mesh}, not of {config.node.name} in {roster.mesh}")
    if with_keys and not manifest.with_keys:
        raise Refused("config_invalid", f"{folder} holds no keys: it was made without --with-keys")
    keys = config.path(config.node.keys)
    if with_keys and not any((keys / f"{use}.key").exists() for use in _USES):
        return
    if _public(keys) != manifest.public:
        if with_keys:
            raise Refused("key_exists", f"{keys} has other keys than {folder}")
        raise Refused("backup_foreign", f"the keys in {keys} are not those of the node whose storage this was")


def _set_aside(data: Path, former: list[Path], now_ms: int) -> Path | None:
    """Move what is there into a folder of its own, the file itself first: what lies beside it means nothing to another."""
    if not former:
        return None
    aside = data / f"replaced-{now_ms}"
    aside.mkdir(mode=0o700)
    for path in former:
        path.rename(aside / path.name)
    sync_folder(data)
    return aside


def _data(config: NodeConfig) -> Path:
    return config.path(config.node.data)


def _public(keys: Path) -> dict[KeyUse, str]:
    """The public halves of the four key files, which nobody else may be able to read."""
    return {use: load(keys / f"{use}.key").key.public for use in _USES}


def _manifest(folder: Path) -> Manifest:
    data = read_bounded(folder / _MANIFEST, MESSAGE_BYTES_MAX)
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError) as error:
        raise Refused("config_invalid", f"{folder / _MANIFEST}: {str(error)[:160]}") from None


def _digest(path: Path) -> str:
    hasher = blake3.blake3()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    return f"blake3:{hasher.hexdigest()}"


@contextmanager
def _made_beside(folder: Path) -> Iterator[Path]:
    """A new folder that gets its name once all of it is there."""
    try:
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise Refused("config_invalid", f"{folder.parent}: {error.strerror}") from None
    try:
        yield fresh
        sync_folder(fresh)
        fresh.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise Unavailable("storage_failed", f"{folder}: {error.strerror}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _copy_keys(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    for use in _USES:
        _copy(source / f"{use}.key", target / f"{use}.key")
    sync_folder(target)


def _put_keys(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for use in _USES:
        if not (target / f"{use}.key").exists():
            _copy(source / f"{use}.key", target / f"{use}.key")
    sync_folder(target)


def _copy(source: Path, target: Path) -> None:
    """A durable copy that only its owner can read; what was left of an earlier try is written anew."""
    target.unlink(missing_ok=True)
    with source.open("rb") as old, open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as new:  # noqa: PTH123 -- a descriptor
        shutil.copyfileobj(old, new, 1 << 20)
        new.flush()
        os.fsync(new.fileno())


def _write(path: Path, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:  # noqa: PTH123 -- a descriptor
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
