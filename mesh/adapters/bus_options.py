"""Where and as whom to connect to NATS: read and checked before nats-py sees it, for it does not check.

nats-py 2.16 reads a credentials file without a token for ever, on the event loop; it learns of a missing file only when it
connects; and it would send a password in the clear to a server that does not ask for TLS (refused in :mod:`mesh.adapters.bus`).
Credentials are read anew for every connection, so that renewing a file is enough. Nkeys are our own codec's
(:mod:`mesh.adapters.nkey`): nats-py would import a package of which there is no wheel.
"""

import re
import ssl
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from mesh.adapters.nkey import UserKey, read_seed
from mesh.errors import Refused

__all__ = ["BusOptions", "Login", "login"]

_NAME: Final = re.compile(r"[a-z0-9-]{1,32}")
_SCHEMES: Final = frozenset({"nats", "tls"})
_TOKEN: Final = re.compile(r"-+BEGIN NATS USER JWT-+\s+([A-Za-z0-9_.=-]+)\s+-+END NATS USER JWT-+")
_SEED: Final = re.compile(r"-+BEGIN USER NKEY SEED-+\s+([A-Z2-7]+)\s+-+END USER NKEY SEED-+")


class BusOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where and as whom; of password, nkey and creds one at most."""

    servers: tuple[str, ...]
    """``nats://host:port`` or ``tls://host:port``; never with a password in it."""
    name: str
    """This client's own name, ``[a-z0-9-]{1,32}``: its inboxes begin with ``_INBOX_<name>.``, so that permissions can name them."""
    user: str = ""
    password: str = ""
    nkey_file: str = ""
    """A file that holds a user's nkey seed."""
    creds_file: str = ""
    """A file that holds a user token and its nkey seed, as NATS tools write it."""
    tls_ca: str = ""
    """The authority that signed the servers' certificates, PEM. Given, a connection without TLS 1.3 is refused."""
    watch_ms: int = 1_000
    """Between two looks of the watchdog."""

    def __repr__(self) -> str:
        return f"BusOptions(name={self.name!r}, servers={self.servers!r}, user={self.user!r})"


class Login(NamedTuple):
    """What :class:`BusOptions` say, read."""

    arguments: dict[str, Any]
    """nats-py's own."""
    key: UserKey | None
    """Who logs in by a signature over the server's nonce."""


def login(options: BusOptions) -> Login:
    """Read the files that ``options`` name.

    Raises:
        Refused: ``config_invalid``, naming the field, never a secret.
    """
    if _NAME.fullmatch(options.name) is None:
        raise Refused("config_invalid", f"bus name {options.name[:40]!r}")
    _check_servers(options.servers)
    if sum((bool(options.user or options.password), bool(options.nkey_file), bool(options.creds_file))) > 1:
        raise Refused("config_invalid", "bus: give one of user and password, nkey_file, creds_file")
    arguments: dict[str, Any] = {}
    if options.user or options.password:
        arguments |= {"user": options.user, "password": options.password}
    key = None
    if options.nkey_file:
        key = _user_key("nkey_file", _read("nkey_file", options.nkey_file).strip())
    if options.creds_file:
        text = _read("creds_file", options.creds_file)
        token, seed = _TOKEN.search(text), _SEED.search(text)
        if token is None or seed is None:
            raise Refused("config_invalid", "bus creds_file: no user token and seed in it")
        key, jwt = _user_key("creds_file", seed[1]), token[1].encode()
        arguments["user_jwt_cb"] = lambda: jwt
    if key is not None:
        arguments["signature_cb"] = key.sign
    if options.tls_ca:
        arguments["tls"] = _tls(options.tls_ca)
    return Login(arguments, key)


def _user_key(field: str, seed: str) -> UserKey:
    try:
        return read_seed(seed)
    except Refused:
        raise Refused("config_invalid", f"bus {field}: not the seed of a user") from None


def _check_servers(servers: tuple[str, ...]) -> None:
    if not servers:
        raise Refused("config_invalid", "bus servers: none")
    for server in servers:
        try:
            where = urlsplit(server)
            usable = where.scheme in _SCHEMES and where.hostname and where.port != 0
        except ValueError:
            where, usable = None, False
        if not usable or (where is not None and "@" in where.netloc):
            raise Refused("config_invalid", "bus servers: each is nats://host:port or tls://host:port, without a user")


def _tls(ca: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:
        raise Refused("config_invalid", f"bus tls_ca: {error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _read(field: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise Refused("config_invalid", f"bus {field}: {reason}") from None
