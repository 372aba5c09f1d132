"""A witness of ours cosigns logs of any maker, answers every status of tlog-witness over real HTTP, and forgets nothing."""

import asyncio
import hashlib
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import witness_log
from tlog_scales.signing import PlainEd25519Signer, Vkey, VkeySet
from tlog_scales.tlog import Checkpoint

from mesh.adapters import signer
from mesh.adapters.httpclient import ask
from mesh.adapters.witnessstore import WitnessStore
from mesh.errors import Unavailable
from mesh.limits import WITNESS_LOGS_MAX, WITNESS_REQUEST_BYTES_MAX
from mesh.protocol import witness as machine
from mesh.protocol.step import FAILPOINTS, Head
from mesh.roles.witness import WitnessNode
from mesh.roles.witness_config import load_witness_config, watched
from tests.core.kit import refuses
from tests.core.log.logs import LOG
from tests.deploy.mesh import dev_mesh
from tests.roles.witnesskit import Process, begin, configure, history, post, running, until
from tests.support.foreign import ForeignLog, vkey_of
from tests.support.rosters import roster, signed

EMPTY = hashlib.sha256(b"").digest()


@pytest.fixture
def log(tmp_path: Path) -> ForeignLog:
    return ForeignLog(tmp_path / "log")


def believed(vkey: str, note: bytes, lines: bytes) -> int:
    """The time that tlog-scales reads out of the witness's line, which it believes."""
    checkpoint = Checkpoint.from_text((note + lines).decode())
    ((_, signature),) = VkeySet(Vkey.from_string(vkey)).verify(checkpoint.signatures, checkpoint)
    return int.from_bytes(signature.payload[:8])


# ------------------------------------------------------------------------------------------------------------------ status


async def test_a_foreign_log_is_cosigned_as_it_grows_and_an_independent_reader_believes_it(tmp_path: Path, log: ForeignLog) -> None:
    async with running(configure(tmp_path, log.vkey)) as (node, url):
        for body in history(log, 1, 5, 300, 70_000):
            reply = await post(url, body)
            assert (reply.status, reply.kind) == (200, "text/plain")
            assert abs(believed(node.verifier.vkey, body.partition(b"\n\n")[2], reply.body) - time.time()) < 60


async def test_a_log_and_its_client_by_another_maker_are_cosigned(tmp_path: Path) -> None:
    log = witness_log.WitnessLog.generate()
    for number in range(5):
        log.append_intent(b"%d" % number)
    origin = log.canonical_origin()
    async with running(configure(tmp_path, log.c2sp_vkey(origin))) as (node, url):
        first = await post(url, log.add_checkpoint_body(0).encode())
        log.append_result(b"more")
        second = await post(url, log.add_checkpoint_body(5).encode())
        assert (first.status, second.status) == (200, 200)
        dossier, counted = log.dossier_from_responses([(node.verifier.key, second.body.decode())])
    assert counted == 1
    assert node.verifier.key in dossier


Case = tuple[int, Callable[[ForeignLog], bytes]]


def _other(seed: int) -> PlainEd25519Signer:
    return PlainEd25519Signer("log.example/behind-the-sofa", bytes([seed]) * 32)


def _spoilt(log: ForeignLog) -> bytes:
    """The key id of the log over somebody else's signature."""
    other = _other(8)
    other.vkey = log.signer.vkey
    return log.ask(5, checkpoint=log.signed(9, bytes(32), by=other))


def _elsewhere(log: ForeignLog) -> bytes:
    stranger = ForeignLog(log.folder.with_name("stranger"), "log.example/unknown", seed=8)
    stranger.grow(1)
    return stranger.ask(0)


CASES: dict[str, Case] = {
    "nothing": (400, lambda _: b""),
    "garbage": (400, lambda _: b"\x00\xff" * 100),
    "no old line": (400, lambda log: log.ask(5).partition(b"\n")[2]),
    "a leading zero": (400, lambda log: log.ask(5).replace(b"old 5", b"old 05")),
    "another alphabet's digit": (400, lambda log: log.ask(5).replace(b"old 5", b"old \xd9\xa5")),
    "more hashes than 63": (400, lambda log: log.ask(5, proof=[bytes(32)] * 64)),
    "a hash of 31 bytes": (400, lambda log: log.ask(5, proof=[bytes(31)])),
    "an extension line": (400, lambda log: log.ask(5).replace(b"\n\n\xe2", b"\nmore\n\n\xe2")),
    "a proof from beyond": (400, lambda log: log.ask(10)),
    "a size beyond any log": (400, lambda log: log.ask(5, checkpoint=log.signed(2**53, bytes(32)))),
    "a log that nobody knows": (404, _elsewhere),
    "a stranger's signature": (403, lambda log: log.ask(5, checkpoint=log.signed(9, bytes(32), by=_other(8)))),
    "the log's key id over another signature": (403, _spoilt),
    "a proof from before": (409, lambda log: log.ask(3)),
    "a proof from nothing": (409, lambda log: log.ask(0)),
    "a proof that leads nowhere": (422, lambda log: log.ask(5, proof=[bytes(32)] * 3)),
    "no proof": (422, lambda log: log.ask(5, proof=[])),
    "the same size with another root": (422, lambda log: log.ask(5, checkpoint=log.signed(5, bytes(32)))),
}


@pytest.mark.parametrize("what", CASES)
async def test_every_refusal_has_its_status_and_changes_nothing(tmp_path: Path, log: ForeignLog, what: str) -> None:
    status, body = CASES[what]
    async with running(configure(tmp_path, log.vkey)) as (node, url):
        (first,) = history(log, 5)
        assert (await post(url, first)).status == 200
        log.grow(4)
        reply = await post(url, body(log))
        assert reply.status == status
        assert (reply.kind, reply.body) == ("text/x.tlog.size", b"5\n") if status == 409 else reply.kind == "text/plain"
        assert (await post(url, log.ask(5))).status == 200
        assert node.counters["http_failed"] == 0


async def test_large_bodies_are_refused_and_whoever_sent_them_hears_it(tmp_path: Path, log: ForeignLog) -> None:
    async with running(configure(tmp_path, log.vkey)) as (_, url):
        for size, status in ((WITNESS_REQUEST_BYTES_MAX, 400), (WITNESS_REQUEST_BYTES_MAX + 1, 413), (10_000_000, 413)):
            assert (await post(url, b"x" * size)).status == status
        log.grow(1)
        assert (await post(url, log.ask(0))).status == 200


@pytest.mark.parametrize(
    ("size", "root", "proof", "status"),
    [(0, EMPTY, [], 200), (0, bytes(32), [], 422), (0, EMPTY, [bytes(32)], 422), (3, bytes(32), [bytes(32)], 422), (3, bytes(32), [], 200)],
    ids=["empty", "empty with another root", "empty with a proof", "first with a proof", "first"],
)
async def test_a_first_checkpoint_needs_no_proof_and_takes_none(
    tmp_path: Path, log: ForeignLog, size: int, root: bytes, proof: list[bytes], status: int
) -> None:
    log.grow(1)
    async with running(configure(tmp_path, log.vkey)) as (_, url):
        assert (await post(url, log.ask(0, proof=proof, checkpoint=log.signed(size, root)))).status == status
        assert (await post(url, log.ask(1, checkpoint=log.signed(4, bytes(32))))).body == (b"3\n" if (size, status) == (3, 200) else b"0\n")


async def test_an_empty_log_may_grow(tmp_path: Path, log: ForeignLog) -> None:
    log.grow(1)
    async with running(configure(tmp_path, log.vkey)) as (_, url):
        assert (await post(url, log.ask(0, checkpoint=log.signed(0, EMPTY)))).status == 200
        assert (await post(url, log.ask(0))).status == 200


async def test_what_was_cosigned_last_is_shown_with_the_same_line(tmp_path: Path, log: ForeignLog) -> None:
    async with running(configure(tmp_path, log.vkey)) as (_, url):
        where = f"{url}/{hashlib.sha256(log.origin.encode()).hexdigest()}/checkpoint"
        assert (await ask(where, wait_ms=5_000, bytes_max=9_999)).status == 404
        (body,) = history(log, 5)
        lines = (await post(url, body)).body
        shown = await ask(where, wait_ms=5_000, bytes_max=9_999)
        assert (shown.status, shown.body) == (200, body.partition(b"\n\n")[2] + lines)
        for path in ("", "/", "/checkpoint", f"/{'0' * 64}/checkpoint", where.removeprefix(url).upper()):
            assert (await ask(f"{url}{path}", wait_ms=5_000, bytes_max=9_999)).status == 404
        assert (await ask(f"{url}/add-checkpoint", wait_ms=5_000, bytes_max=9_999)).status == 405
        assert (await ask(where, method="POST", wait_ms=5_000, bytes_max=9_999)).status == 405


async def test_a_log_may_have_two_keys_and_lines_of_others_do_no_harm(tmp_path: Path, log: ForeignLog) -> None:
    log.grow(2)
    both = configure(tmp_path, log.vkey, _named(log.origin, 8))
    async with running(both) as (_, url):
        root = log.checkpoint().root_hash
        two = Checkpoint.make_signed(log.origin, 2, root, [_other(3), _other(8), log.signer])
        assert (await post(url, log.ask(0, checkpoint=two))).status == 200
        assert (await post(url, log.ask(2, checkpoint=log.signed(2, root, by=_other(8))))).status == 200


# ------------------------------------------------------------------------------------------------------------------- memory


async def test_a_retry_gets_the_same_bytes_and_a_quiet_log_a_new_time_later(
    tmp_path: Path, log: ForeignLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(tmp_path, log.vkey)
    (first,) = history(log, 5)
    async with running(config) as (_, url):
        lines = (await post(url, first)).body
        assert (await post(url, log.ask(5))).body == lines
    async with running(config) as (node, url):
        assert (await post(url, log.ask(5))).body == lines
        monkeypatch.setattr(machine, "RENEW_S", 1)
        await asyncio.sleep(2.1)
        later = (await post(url, log.ask(5))).body
        assert later != lines
        note = first.partition(b"\n\n")[2]
        assert believed(node.verifier.vkey, note, later) > believed(node.verifier.vkey, note, lines)


@pytest.mark.parametrize("point", [name for name in FAILPOINTS if name != "send.after"])
def test_killed_between_any_two_steps_a_witness_answers_a_retry_with_one_cosignature(tmp_path: Path, log: ForeignLog, point: str) -> None:
    config = configure(tmp_path, log.vkey)
    first, second = history(log, 5, 9)
    before = Process(config)
    assert asyncio.run(post(before.url, first)).status == 200
    assert before.end() == 0
    killed = Process(config, failpoint=f"{point}:1")
    with pytest.raises(Unavailable):
        asyncio.run(post(killed.url, second))
    assert killed.end(0) == -signal.SIGKILL
    kept = asyncio.run(_kept(config))
    assert kept == (5 if point == "persist.before" else 9)
    again = Process(config)
    repeated = [asyncio.run(post(again.url, second)), asyncio.run(post(again.url, log.ask(9)))]
    assert again.end() == 0
    assert [reply.status for reply in repeated] == ([200, 200] if kept == 5 else [409, 200])
    assert repeated[0].body in {repeated[1].body, b"9\n"}


def test_a_cosignature_that_never_arrived_is_the_one_that_a_retry_gets(tmp_path: Path, log: ForeignLog) -> None:
    """Persisted, and killed before the answer: the time that was persisted is the time that is signed after the restart."""
    config = configure(tmp_path, log.vkey)
    (body,) = history(log, 5)
    killed = Process(config, failpoint="persist.after:1")
    with pytest.raises(Unavailable):
        asyncio.run(post(killed.url, body))
    killed.end(0)
    time_s = asyncio.run(_time(config, log.origin))
    time.sleep(1.1)
    again = Process(config)
    lines = asyncio.run(post(again.url, log.ask(5))).body
    again.end()
    vkey = _vkey(config)
    assert believed(vkey, body.partition(b"\n\n")[2], lines) == time_s


def _vkey(config: Path) -> str:
    return WitnessNode(load_witness_config(config), lambda _name: None).verifier.vkey


async def _open(config: Path) -> WitnessStore:
    settings = load_witness_config(config)
    key_file = settings.path(settings.witness.key)
    return await WitnessStore.open(
        settings.path(settings.witness.data) / "witness.db", key=signer.load(key_file).key.public, key_file=key_file
    )


async def _kept(config: Path) -> int:
    store = await _open(config)
    sizes = [one.head.size for one in (await store.all()).values()]
    await store.close()
    return max(sizes)


async def _time(config: Path, origin: str) -> int:
    store = await _open(config)
    known = await store.all()
    await store.close()
    return known[origin].head.time_s


def test_of_two_witnesses_with_one_key_one_runs_wherever_the_other_keeps_its_file(tmp_path: Path, log: ForeignLog) -> None:
    asyncio.run(begin(configure(tmp_path, log.vkey, data="elsewhere")))
    first = Process(configure(tmp_path, log.vkey))
    second = Process(configure(tmp_path, log.vkey, data="elsewhere"))
    assert first.port
    assert not second.port
    assert second.end(0) == 1
    assert "storage_failed" in second.said
    assert "in use by another process" in second.said
    assert first.end() == 0
    third = Process(configure(tmp_path, log.vkey, data="elsewhere"))
    assert third.port
    assert third.end() == 0


async def test_two_histories_under_the_logs_own_key_are_kept_as_evidence(tmp_path: Path, log: ForeignLog) -> None:
    config = configure(tmp_path, log.vkey)
    (first,) = history(log, 5)
    async with running(config) as (_, url):
        await post(url, first)
        for _ in range(2):
            assert (await post(url, log.ask(5, checkpoint=log.signed(5, bytes(32))))).status == 422
        assert (await post(url, log.ask(5, checkpoint=log.signed(5, b"x" * 32, by=_other(8))))).status == 403
    store = await _open(config)
    evidence = await store.evidence()
    await store.close()
    assert evidence == [(log.origin, log.signed(5, bytes(32)).serialize().encode())]


async def test_many_at_once_about_one_log_leave_one_history(tmp_path: Path, log: ForeignLog) -> None:
    async with running(configure(tmp_path, log.vkey)) as (node, url):
        bodies = history(log, *range(1, 40))
        replies = await asyncio.gather(*(post(url, body) for body in bodies for _ in range(3)))
        assert {reply.status for reply in replies} <= {200, 409}
        at = 0
        while (reply := await post(url, bodies[at])).status == 409 and int(reply.body) != 39:
            at = int(reply.body)
        assert node.counters["http_failed"] == 0


# ------------------------------------------------------------------------------------------------------------ configuration


def test_the_members_of_a_mesh_and_the_logs_of_a_policy_are_watched(tmp_path: Path, log: ForeignLog) -> None:
    files = dev_mesh(tmp_path / "mesh")
    other = _named("log.example/other", 4)
    (tmp_path / "c2sp.policy").write_text(f"# more\n\nlog\t{other} https://log.example/\nwitness x {other}\ngroup g any x\nquorum g\n")
    more = f'policies = ["c2sp.policy"]\n[meshes.dev]\nroster = "mesh/roster.json"\npin = "{files.pin}"\n'
    logs = watched(load_witness_config(configure(tmp_path, log.vkey, more=more)))
    assert set(logs) == {log.origin, "log.example/other", *(f"dev/{name}/e1" for name in files.nodes)}
    assert logs[log.origin][0].vkey == log.vkey


def test_who_joins_a_mesh_later_is_watched_once_the_next_roster_is_listed(tmp_path: Path) -> None:
    first = signed(roster(("a", "b", "c", "d"), 1, 3))
    second = signed(roster(("a", "b", "c", "d", "e"), 1, 4, after=first))
    for name, statement in (("1.json", first), ("2.json", second)):
        (tmp_path / name).write_bytes(statement.envelope)
    more = f'[meshes.lab]\nroster = "1.json"\npin = "{first.id}"\n'
    assert set(watched(load_witness_config(configure(tmp_path, more=more)))) == {f"lab/{name}/e1" for name in "abcd"}
    more += 'later = ["2.json"]\n'
    assert set(watched(load_witness_config(configure(tmp_path, more=more)))) == {f"lab/{name}/e1" for name in "abcde"}


def _named(name: str, seed: int) -> str:
    return vkey_of(PlainEd25519Signer(name, bytes([seed]) * 32))


@pytest.mark.parametrize(
    "logs",
    [
        [],
        ["log.example/x"],
        [_named("log.example/x", 1), _named("log.example/y", 1)],
        [_named(f"log.example/{number}", 1 + number % 250) for number in range(WITNESS_LOGS_MAX + 1)],
        [LOG.vkey.replace("+", "/", 1)],
    ],
    ids=["none", "no key", "one key for two logs", "too many", "another name"],
)
def test_a_list_of_logs_that_cannot_be_meant_is_refused(tmp_path: Path, logs: list[str]) -> None:
    with refuses("config_invalid"):
        watched(load_witness_config(configure(tmp_path, *logs)))


async def test_an_address_that_is_taken_is_said_at_the_start(tmp_path: Path, log: ForeignLog) -> None:
    async with running(configure(tmp_path, log.vkey)) as (node, _):
        config = configure(tmp_path / "other", log.vkey)
        config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{node.port}"))
        with refuses("config_invalid"):
            async with running(config):
                pytest.fail("two at one address")


# ---------------------------------------------------------------------------------------------------------- failing storage


Break = Callable[[Any, pytest.MonkeyPatch], None]


def _raising(name: str, *, when: str = "", after: bool = False) -> Break:
    """The writer's method fails, before or after it did what it does, for statements that begin so."""

    def broken(writer: Any, patch: pytest.MonkeyPatch) -> None:
        real = getattr(writer, name)

        async def call(*arguments: Any, **more: Any) -> Any:
            mine = not when or (arguments and str(arguments[0]).lstrip().startswith(when))
            if mine and not after:
                raise sqlite3.OperationalError("disk I/O error")
            answer = await real(*arguments, **more)
            if mine:
                raise sqlite3.OperationalError("disk I/O error")
            return answer

        patch.setattr(writer, name, call)

    return broken


FAULTS: dict[str, tuple[Break, int]] = {
    "beginning fails": (_raising("execute", when="BEGIN"), 5),
    "beginning fails after it began": (_raising("execute", when="BEGIN", after=True), 5),
    "writing fails": (_raising("execute_fetchall", when="UPDATE"), 5),
    "writing fails after it wrote": (_raising("execute_fetchall", when="UPDATE", after=True), 5),
    "committing fails, not persisted": (_raising("commit"), 5),
    "committing fails, persisted": (_raising("commit", after=True), 9),
}


@pytest.mark.parametrize("what", FAULTS)
async def test_storage_that_fails_anywhere_answers_nothing_and_goes_on_with_what_is_on_the_disk(
    tmp_path: Path, log: ForeignLog, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    broken, kept = FAULTS[what]
    first, second = history(log, 5, 9)
    async with running(configure(tmp_path, log.vkey)) as (node, url):
        assert (await post(url, first)).status == 200
        assert node._store is not None
        with monkeypatch.context() as patch:
            broken(node._store._file._writer, patch)
            refused = await post(url, second)
        assert (refused.status, refused.body) == (503, b"")
        await until(lambda: node._store is not None)
        assert node._cosigned[log.origin].head.size == kept
        again = await post(url, second)
        assert (again.status, again.body) == (409, b"9\n") if kept == 9 else again.status == 200
        last = await post(url, log.ask(9))
        assert last.status == 200
        assert kept == 9 or last.body == again.body
        assert believed(node.verifier.vkey, second.partition(b"\n\n")[2], last.body) == node._cosigned[log.origin].head.time_s


async def test_a_file_that_cannot_be_opened_again_is_tried_until_it_can(
    tmp_path: Path, log: ForeignLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = history(log, 5, 9)
    async with running(configure(tmp_path, log.vkey)) as (node, url):
        await post(url, first)
        opened, tried = WitnessStore.open, list[int]()

        async def open_(*arguments: Any, **more: Any) -> WitnessStore:
            tried.append(1)
            if len(tried) < 3:
                raise Unavailable("storage_failed", "still")
            return await opened(*arguments, **more)

        assert node._store is not None
        with monkeypatch.context() as patch:
            patch.setattr(WitnessStore, "open", open_)
            _raising("commit")(node._store._file._writer, patch)
            assert (await post(url, second)).status == 503
            await until(lambda: bool(tried))
            assert (await post(url, log.ask(5))).status == 503
            await until(lambda: len(tried) == 3)
        await until(lambda: node._store is not None)
        assert (await post(url, second)).status == 200


async def test_a_file_that_holds_something_else_than_was_judged_stops_the_witness(tmp_path: Path, log: ForeignLog) -> None:
    first, second = history(log, 5, 9)
    async with running(configure(tmp_path, log.vkey)) as (node, url):
        await post(url, first)
        known = node._cosigned[log.origin]
        node._cosigned[log.origin] = known._replace(head=Head(5, known.head.root, known.head.time_s - 1))
        assert (await post(url, second)).status == 503
        assert node._fatal is not None
        assert node._fatal.code == "storage_rolled_back"
    assert await _kept(tmp_path / "data.toml") == 5


async def test_a_witness_whose_file_is_another_keys_does_not_start(tmp_path: Path, log: ForeignLog) -> None:
    async with running(configure(tmp_path, log.vkey)):
        pass
    (tmp_path / "witness.key").unlink()
    signer.generate(tmp_path / "witness.key", "witness", bytes(32))
    with refuses("config_invalid"):
        async with running(configure(tmp_path, log.vkey)):
            pytest.fail("another key goes on with what was cosigned under the first")
