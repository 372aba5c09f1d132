"""Secret keys live in files that only their owner can read, sign one use each, and appear in no message, repr or error.

Rules
-----
1. One file, one key, one line: ``govmesh-key-v1 <use> <public key hex> <seed hex>``. Made with ``O_EXCL`` and mode 0600 and
   synced with its folder before :func:`generate` returns: a key that signed something is never lost to a power cut, and no
   key is ever overwritten.
2. A file that others could read, or that another user owns, is refused: who may have copied it cannot be known.
3. The rights are asked of the opened file, not of its name; nothing can be exchanged in between.
4. A signature is asked for by use. A key signs only what its use says, so a witness key never authorizes anything, and one
   key is never two uses.
5. A key of the use ``auditor-seal`` signs nothing: it opens boxes, on another curve (X25519), and neither kind is loaded as the other.

Not here: randomness (the seed is handed in), public keys and thresholds (:mod:`mesh.core.bytes.keys`).
"""

import os
import re
import stat
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mesh.adapters.durable import sync_folder
from mesh.core.bytes.keys import SecretKey
from mesh.core.bytes.sealkeys import SealKey
from mesh.errors import Refused
from mesh.limits import KEY_FILE_BYTES_MAX

__all__ = ["SEAL_USE", "KeyFile", "Signer", "generate", "generate_seal", "load", "load_seal", "public_of"]

_LINE: Final = re.compile(rb"govmesh-key-v1 ([a-z][a-z-]{0,31}) ([0-9a-f]{64}) ([0-9a-f]{64})\n?")
_USE: Final = re.compile(r"[a-z][a-z-]{0,31}")
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
SEAL_USE: Final = "auditor-seal"
"""Of keys that sign nothing (rule 5)."""


class KeyFile:
    """A key and what it is for; prints its public half only."""

    __slots__ = ("key", "use")

    def __init__(self, use: str, key: SecretKey) -> None:
        self.use = use
        self.key = key

    def __repr__(self) -> str:
        return f"KeyFile({self.use!r}, {self.key!r})"


def generate(path: Path, use: str, seed: bytes) -> KeyFile:
    """Make the key of a 32-byte ``seed`` and keep it at ``path`` for ``use`` (rule 1).

    Raises:
        Refused: ``bad_key`` for a seed that is not 32 bytes or a use that is not a word; ``key_exists``; ``config_invalid``
            when the file cannot be made.
    """
    if _USE.fullmatch(use) is None or use == SEAL_USE:
        raise Refused("bad_key", f"{use[:32]!r} is no use of a key that signs")
    key = SecretKey(seed)
    _write(path, use, key.public, seed)
    return KeyFile(use, key)


def generate_seal(path: Path, seed: bytes) -> SealKey:
    """Make the key of 32 random bytes that opens what is sealed for its holder, and keep it at ``path`` (rules 1 and 5).

    Raises:
        Refused: as :func:`generate`.
    """
    key = SealKey(seed)
    _write(path, SEAL_USE, key.public, seed)
    return key


def _write(path: Path, use: str, public: str, seed: bytes) -> None:
    with _foreign_errors(path):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(handle, "wb") as file:  # noqa: PTH123 -- a descriptor, not a path
                file.write(f"govmesh-key-v1 {use} {public} {seed.hex()}\n".encode())
                file.flush()
                os.fsync(handle)
        except BaseException:
            path.unlink()  # half a key would stand in the way of the next attempt
            raise
        sync_folder(path.parent)  # else the name may be gone after a power cut, and with it every signature's key


def load(path: Path) -> KeyFile:
    """The key at ``path``.

    Raises:
        Refused: ``key_exposed`` (rule 2), ``too_large``, ``bad_key`` for what is not one line of rule 1 or whose halves do not belong
            together, or for a key that signs nothing (rule 5), ``config_invalid`` when it cannot be read.
    """
    use, key = _load(path)
    if isinstance(key, SealKey):
        raise Refused("bad_key", f"{path} is a key for {SEAL_USE}: it opens boxes and signs nothing")
    return KeyFile(use, key)


def load_seal(path: Path) -> SealKey:
    """The key at ``path`` that opens boxes.

    Raises:
        Refused: as :func:`load`; ``bad_key`` for a key of another use.
    """
    use, key = _load(path)
    if not isinstance(key, SealKey):
        raise Refused("bad_key", f"{path} is a key for {use}, not for {SEAL_USE}")
    return key


def public_of(path: Path) -> tuple[str, str]:
    """What the key at ``path`` is for, and its public half; of either kind.

    Raises:
        Refused: as :func:`load`.
    """
    use, key = _load(path)
    return use, key.public


def _load(path: Path) -> tuple[str, SecretKey | SealKey]:
    use, public, seed = _read(path)
    key = SealKey(seed) if use == SEAL_USE else SecretKey(seed)
    if key.public != public:
        raise Refused("bad_key", f"{path}: the two halves do not belong together")
    return use, key


def _read(path: Path) -> tuple[str, str, bytes]:
    """Use, public half and seed, as the file says them."""
    with _foreign_errors(path):
        # O_NONBLOCK: a pipe in the place of the file must be refused, not waited for.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:  # noqa: PTH123 -- a descriptor, not a path
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise Refused("bad_key", f"{path} is no file")
            if status.st_mode & _OTHERS:
                raise Refused("key_exposed", f"{path} has mode {stat.S_IMODE(status.st_mode):o}")
            if status.st_uid != os.geteuid():
                raise Refused("key_exposed", f"{path} belongs to another user")
            if status.st_size > KEY_FILE_BYTES_MAX:
                raise Refused("too_large", f"{path} has {status.st_size} bytes, at most {KEY_FILE_BYTES_MAX}")
            data = file.read(KEY_FILE_BYTES_MAX)
    found = _LINE.fullmatch(data)
    if found is None:
        raise Refused("bad_key", f"{path} is not a key file")  # and not a word of what it holds
    use, public, seed = (part.decode() for part in found.groups())
    return use, public, bytes.fromhex(seed)


class Signer:
    """A node's keys by use; what it cannot do is sign for a use it has no key for.

    Raises:
        Refused: ``bad_key`` when two keys have one use, or one key two.
    """

    def __init__(self, keys: Iterable[KeyFile]) -> None:
        self._keys: dict[str, SecretKey] = {}
        for entry in keys:
            if entry.use in self._keys or any(entry.key.public == other.public for other in self._keys.values()):
                raise Refused("bad_key", f"the {entry.use} key is there twice")
            self._keys[entry.use] = entry.key

    def sign(self, use: str, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature over ``message`` by the key for ``use``.

        Raises:
            Refused: ``bad_key`` without such a key.
        """
        return self._key(use).sign(message)

    def public(self, use: str) -> str:
        """The public key for ``use``, lowercase hex.

        Raises:
            Refused: ``bad_key`` without such a key.
        """
        return self._key(use).public

    def __repr__(self) -> str:
        return f"Signer({', '.join(f'{use}={key.public[:8]}…' for use, key in sorted(self._keys.items()))})"

    def _key(self, use: str) -> SecretKey:
        key = self._keys.get(use)
        if key is None:
            raise Refused("bad_key", f"no key for {use!r} here")
        return key


@contextmanager
def _foreign_errors(path: Path) -> Generator[None]:
    try:
        yield
    except FileExistsError:
        raise Refused("key_exists", str(path)) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise Refused("config_invalid", f"{path}: {reason}") from None
