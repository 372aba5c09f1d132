"""Where and as whom: checked before nats-py sees it, and shown to nobody."""

import base64
import json
import ssl
import sys
from pathlib import Path

import anyio
import pytest
from nacl.signing import SigningKey

from mesh.adapters.bus import Bus, BusOptions
from mesh.adapters.bus_options import login
from mesh.adapters.natsserver import NatsServer
from mesh.adapters.nkey import make_user
from mesh.errors import Refused, Unavailable
from tests.adapters.certificates import certificates
from tests.adapters.fakeserver import FakeServer

SEED = "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y"
PUBLIC = "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK"
CREDS = f"""-----BEGIN NATS USER JWT-----
head.claims.signature
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
{SEED}
------END USER NKEY SEED------
"""


@pytest.fixture(autouse=True)
def no_package_for_nkeys(monkeypatch: pytest.MonkeyPatch) -> None:
    """nats-py would import it: there is no wheel of it."""
    monkeypatch.setitem(sys.modules, "nkeys", None)


def kept(tmp_path: Path, text: str) -> str:
    path = tmp_path / "credentials"
    path.write_text(text)
    return str(path)


def why_not(**fields: object) -> str:
    options = BusOptions(**{"servers": ("nats://127.0.0.1:4222",), "name": "node"} | fields)  # type: ignore[arg-type]
    with pytest.raises(Refused) as no:
        login(options)
    assert no.value.code == "config_invalid"
    assert SEED not in str(no.value)
    return no.value.detail


@pytest.mark.parametrize("name", ["", "a.b", "A", "a b", "*", "a" * 33, "a\n"])
def test_a_name_that_cannot_begin_an_inbox_is_refused(name: str) -> None:
    assert "name" in why_not(name=name)


@pytest.mark.parametrize(
    "server",
    ["", "127.0.0.1:4222", "http://a:1", "nats://", "nats://a:99999", "nats://a:x", "nats://user:secret@a:1", "nats://[a:1", "nats://a:0"],
)
def test_an_address_that_cannot_be_dialled_or_holds_a_password_is_refused(server: str) -> None:
    assert "secret" not in why_not(servers=("nats://127.0.0.1:4222", server))


def test_no_address_at_all_is_refused() -> None:
    assert "servers" in why_not(servers=())


def test_two_ways_to_log_in_are_refused(tmp_path: Path) -> None:
    path = kept(tmp_path, SEED)
    assert "one of" in why_not(user="a", password="b", nkey_file=path)
    assert "one of" in why_not(creds_file=path, nkey_file=path)


def test_files_that_are_missing_or_are_something_else_are_refused(tmp_path: Path) -> None:
    """nats-py reads a creds file without a token for ever, on the event loop."""
    for field in ("nkey_file", "creds_file", "tls_ca"):
        assert field in why_not(**{field: str(tmp_path / "missing")})
        (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
        assert field in why_not(**{field: str(tmp_path / "binary")})
        assert field in why_not(**{field: kept(tmp_path, "nothing of use")})
    assert "creds_file" in why_not(creds_file=kept(tmp_path, CREDS.replace("JWT", "TOKEN")))
    assert "nkey_file" in why_not(nkey_file=kept(tmp_path, SEED[:-1]))


def test_a_seed_that_only_looks_like_one_is_refused(tmp_path: Path) -> None:
    assert "nkey_file" in why_not(nkey_file=kept(tmp_path, "SU" + "7" * 56))
    assert "creds_file" in why_not(creds_file=kept(tmp_path, CREDS.replace(SEED, SEED[:-1] + "A")))


async def test_an_nkey_logs_in_and_another_does_not(tmp_path: Path) -> None:
    with NatsServer.start(tmp_path / "n", config=f"accounts {{ A {{ users: [ {{ nkey: {PUBLIC} }} ] }} }}") as server:
        async with await Bus.connect(BusOptions(servers=(server.url,), name="node", nkey_file=kept(tmp_path, SEED + "\n"))) as bus:
            assert bus.healthy
        make_user(tmp_path / "stranger.nk", bytes(32))
        with pytest.raises(Unavailable) as no:
            await Bus.connect(BusOptions(servers=(server.url,), name="node", nkey_file=str(tmp_path / "stranger.nk")), wait_ms=300)
        assert no.value.code == "unreachable"


async def test_a_broken_connection_comes_back_with_the_same_nkey(tmp_path: Path) -> None:
    config = f"accounts {{ A {{ users: [ {{ nkey: {PUBLIC} }} ] }} }}"
    path = kept(tmp_path, SEED)
    with NatsServer.start(tmp_path / "n", config=config) as server:
        port = int(server.url.rpartition(":")[2])
        bus = await Bus.connect(BusOptions(servers=(server.url,), name="node", nkey_file=path, watch_ms=100))
        server.stop()
        with NatsServer.start(tmp_path / "n", config=config, port=port), anyio.fail_after(20):
            while not (bus.healthy and bus.counters["reconnects"] + bus.counters["rebuilds"]):  # noqa: ASYNC110 -- another process
                await anyio.sleep(0.02)
            await bus.close()


async def test_a_creds_file_logs_in_with_its_token_and_a_signature_of_its_seed(tmp_path: Path) -> None:
    path = kept(tmp_path, CREDS)
    async with FakeServer(auth_required=True, nonce="abc") as fake:
        bus = await Bus.connect(BusOptions(servers=(fake.url,), name="node", creds_file=path))
        sent = json.loads(bytes(fake.heard).split(b"\r\n")[0].removeprefix(b"CONNECT "))
        await bus.close()
    assert sent["jwt"] == "head.claims.signature"
    assert "nkey" not in sent
    SigningKey(bytes(range(32))).verify_key.verify(b"abc", base64.b64decode(sent["sig"]))
    assert SEED.encode() not in fake.heard


async def test_tls_with_the_right_authority_connects_and_with_another_does_not(tmp_path: Path) -> None:
    for folder in ("ours", "theirs"):
        (tmp_path / folder).mkdir()
    made, other = certificates(tmp_path / "ours"), certificates(tmp_path / "theirs")
    config = f'tls {{ cert_file: "{made.certificate}", key_file: "{made.key}" }}'
    with NatsServer.start(tmp_path / "n", config=config) as server:
        async with await Bus.connect(BusOptions(servers=(server.url,), name="node", tls_ca=str(made.ca))) as bus:
            assert bus.healthy
            assert bus._client is not None
            channel: ssl.SSLObject = bus._client._transport._io_writer.get_extra_info("ssl_object")
            assert channel.version() == "TLSv1.3"
        with anyio.fail_after(5), pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await Bus.connect(BusOptions(servers=(server.url,), name="node", tls_ca=str(other.ca)), wait_ms=300)
