"""A governor's storage is copied while it runs, and put back whole and where it belongs; what it signed since comes from the others."""

import asyncio
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mesh.adapters.store import Store
from mesh.cli import run
from mesh.core.log.record import DecisionMade, Incident, read_record
from mesh.core.messages import Authorized
from mesh.dev.cluster import Cluster
from tests.live.kit import Client, authorization_in, code_of, command, make_files

NAME = "us-1"
ORIGIN = "dev/us-1/e1"
FILES = {"manifest.json", "node.db"}

Ran = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str]) -> Ran:
    """A `mesh node …` command: exit status, its object, standard error."""

    def call(*arguments: str | Path) -> tuple[int, Any, str]:
        status = run(["-o", "json", "node", *map(str, arguments)])
        shown = capsys.readouterr()
        return status, json.loads(shown.out) if shown.out else None, shown.err

    return call


@pytest.fixture
def one(single: Cluster) -> Cluster:
    """A mesh of one that has decided something."""

    async def ask() -> None:
        client = await Client.connect(single.files.context)
        for _ in range(20):
            assert code_of(await client.ask()) == "authorized"
        await client.bus.close()

    asyncio.run(ask())
    return single


def _refused(ran: Ran, code: str, status: int, *arguments: str | Path) -> str:
    found, _, err = ran(*arguments)
    assert json.loads(err.splitlines()[0])["error"]["code"] == code, err
    assert found == status
    return err


def _data(cluster: Cluster, name: str) -> Path:
    return cluster.files.folder / "nodes" / name / "data"


def _config(cluster: Cluster, name: str) -> Path:
    return cluster.files.node(name)


def test_a_backup_of_a_running_node_says_what_it_holds_and_has_no_keys_unless_they_are_asked_for(
    one: Cluster, ran: Ran, tmp_path: Path
) -> None:
    config = _config(one, "eu-1")
    status, made, err = ran("backup", "--config", config, "--out", tmp_path / "plain")
    assert (status, made["node"], made["mesh"], made["with_keys"]) == (0, "eu-1", "dev", False), err
    assert made["records"] >= 20
    assert {path.name for path in (tmp_path / "plain").iterdir()} == FILES
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "plain").iterdir()} == {0o600}
    assert (tmp_path / "plain").stat().st_mode & 0o777 == 0o700
    _refused(ran, "data_exists", 3, "backup", "--config", config, "--out", tmp_path / "plain" / "node.db")
    status, keyed, _ = ran("backup", "--config", config, "--out", tmp_path / "plain", "--with-keys")
    inside = Path(keyed["backup"])
    assert (status, inside.parent, keyed["with_keys"]) == (0, tmp_path / "plain", True)
    assert {path.name: path.stat().st_mode & 0o777 for path in (inside / "keys").iterdir()} == {
        f"{use}.key": 0o600 for use in ("log", "witness", "attest", "decision")
    }
    for source in (tmp_path / "plain", inside):
        status, verified, err = ran("verify", source)
        assert (status, verified["records"] >= 20, err) == (0, True, "")
    status, live, _ = ran("verify", "--config", config)
    assert (status, live["records"] >= made["records"]) == (0, True)
    assert one.alive("eu-1")
    (inside / "keys" / "log.key").chmod(0o644)
    _refused(ran, "key_exposed", 3, "verify", inside)


def test_nothing_is_put_back_where_a_node_runs_or_anything_is_and_what_is_replaced_is_kept(one: Cluster, ran: Ran, tmp_path: Path) -> None:
    config, data, kept = _config(one, "eu-1"), _data(one, "eu-1"), tmp_path / "kept"
    assert ran("backup", "--config", config, "--out", kept, "--with-keys")[0] == 0
    _refused(ran, "node_running", 1, "restore", "--config", config, kept, "--replace")
    one.kill("eu-1")
    before = {path.name: path.read_bytes() for path in data.iterdir() if path.name in {"node.db", "node.db-wal"}}
    _refused(ran, "data_exists", 3, "restore", "--config", config, kept)
    assert {name: (data / name).read_bytes() for name in before} == before
    status, said, err = ran("restore", "--config", config, kept, "--replace")
    assert status == 0, err
    assert "asks every other member" in err
    aside = Path(said["replaced"])
    assert {name: (aside / name).read_bytes() for name in before} == before
    assert not (data / "node.db-wal").exists()
    assert (data / "node.db").read_bytes() == (kept / "node.db").read_bytes()
    keys = one.files.folder / "nodes" / "eu-1" / "keys"
    seeds = {path.name: path.read_bytes() for path in keys.iterdir()}
    shutil.rmtree(data)
    shutil.rmtree(keys)
    _refused(ran, "config_invalid", 3, "restore", "--config", config, kept)
    assert ran("restore", "--config", config, kept, "--with-keys")[0] == 0
    assert {name: (keys / name).read_bytes() for name in seeds if name.endswith(".key")} == {
        name: seed for name, seed in seeds.items() if name.endswith(".key")
    }
    one.start(["eu-1"])


def test_a_backup_of_another_member_or_mesh_is_refused(one: Cluster, ran: Ran, tmp_path: Path) -> None:
    assert ran("backup", "--config", _config(one, "eu-1"), "--out", tmp_path / "kept")[0] == 0
    twin = make_files(tmp_path / "twin", nodes=2)
    for name in twin.nodes:
        config = twin.node(name)
        text = config.read_text(encoding="utf-8")
        if "servers = []" in text:
            config.write_text(text.replace("servers = []", 'servers = ["nats://127.0.0.1:1"]'), encoding="utf-8")
        err = _refused(ran, "backup_foreign", 3, "restore", "--config", config, tmp_path / "kept")
        assert ("keys" if name == "eu-1" else "eu-1") in err
        assert not (twin.folder / "nodes" / name / "data" / "node.db").exists()
    shutil.copytree(_data(one, "eu-1"), twin.folder / "nodes" / "us-1" / "data", dirs_exist_ok=True)
    _refused(ran, "backup_foreign", 3, "verify", "--config", twin.node("us-1"))
    _refused(ran, "backup_foreign", 3, "backup", "--config", twin.node("us-1"), "--out", tmp_path / "stolen")
    assert not (tmp_path / "stolen").exists()


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_one_flipped_bit_anywhere_in_a_backup_is_found_and_nothing_of_it_is_put_back(one: Cluster, ran: Ran, tmp_path: Path) -> None:
    config, kept = _config(one, "eu-1"), tmp_path / "kept"
    assert ran("backup", "--config", config, "--out", kept)[0] == 0
    one.kill("eu-1")
    shutil.rmtree(_data(one, "eu-1"))
    size = (kept / "node.db").stat().st_size
    for at in range(0, size, size // 7):
        _flip(kept / "node.db", at)
        _refused(ran, "storage_corrupt", 5, "verify", kept)
        _refused(ran, "storage_corrupt", 5, "restore", "--config", config, kept)
        assert not (_data(one, "eu-1") / "node.db").exists()
        _flip(kept / "node.db", at)
    manifest = (kept / "manifest.json").read_text(encoding="utf-8")
    (kept / "manifest.json").write_text(manifest.replace('"incarnation": 1', '"incarnation": 2'), encoding="utf-8")
    _refused(ran, "storage_corrupt", 5, "verify", kept)
    (kept / "manifest.json").write_text(manifest.replace('"v": 1', '"v": 2'), encoding="utf-8")
    _refused(ran, "config_invalid", 3, "verify", kept)
    (kept / "manifest.json").write_text(manifest, encoding="utf-8")
    (kept / "node.db").rename(kept / "other")
    _refused(ran, "config_invalid", 3, "verify", kept)
    (kept / "other").rename(kept / "node.db")
    assert ran("restore", "--config", config, kept)[0] == 0
    assert ran("verify")[0] == 64
    _refused(ran, "not_found", 3, "backup", "--config", make_config_without_data(one, tmp_path), "--out", tmp_path / "none")


def make_config_without_data(cluster: Cluster, folder: Path) -> Path:
    """The node's configuration with a folder that holds nothing."""
    path = _config(cluster, "eu-1").with_name("empty.toml")
    text = _config(cluster, "eu-1").read_text(encoding="utf-8")
    path.write_text(text.replace('data = "data"', f'data = "{folder / "empty"}"'), encoding="utf-8")
    return path


async def _asking(client: Client, region: str, answered: dict[str, str], slowest: list[float], stop: asyncio.Event) -> None:
    """Ask one thing after the other; what was authorized, by intent."""
    while not stop.is_set():
        identity, data = client.request(client.intent())
        begun = time.monotonic()
        answer = await client.send(data, region=region)
        slowest.append(time.monotonic() - begun)
        assert isinstance(answer, Authorized), code_of(answer)
        answered[identity] = authorization_in(answer).id


async def test_a_node_restored_from_a_backup_made_under_load_refills_and_nobody_sees_a_second_history(
    own_mesh: Cluster, tmp_path: Path
) -> None:
    client = await Client.connect(own_mesh.files.context)
    region, config = client.governance.roster.member(NAME).region, str(_config(own_mesh, NAME))
    await client.until(NAME, "fresh", lambda status: status.fresh)
    answered, waited, stop = dict[str, str](), list[float](), asyncio.Event()
    load = [asyncio.create_task(_asking(client, region, answered, waited, stop)) for _ in range(8)]
    await asyncio.sleep(1)
    status, made, err = await command(own_mesh, "node", "backup", "--config", config, "--out", str(tmp_path / "kept"))
    assert (status, made["node"]) == (0, NAME), err
    await asyncio.sleep(1)
    stop.set()
    await asyncio.gather(*load)
    late = await client.until(NAME, "certified", lambda status: status.certified == status.size > made["records"] // 4)
    assert late.size > next(log["size"] for log in made["logs"] if log["origin"] == ORIGIN), "nothing came after the backup"
    for other in set(own_mesh.files.nodes) - {NAME}:
        await client.until(other, "a mirror", lambda held: any(each.origin == ORIGIN and each.size >= late.size for each in held.mirrors))
    own_mesh.kill(NAME)
    status, said, err = await command(own_mesh, "node", "restore", "--config", config, "--replace", str(tmp_path / "kept"))
    assert status == 0, err
    assert Path(said["replaced"]).is_dir()
    own_mesh.start([NAME])
    back = await client.until(NAME, "back", lambda now: now.fresh and now.size > late.size and now.certified == now.size, wait_s=30)
    assert back.incarnation == late.incarnation + 1
    assert code_of(await client.ask(region=region)) == "authorized"
    held = [mirror for name in own_mesh.files.nodes for mirror in (await client.status(name)).mirrors]
    assert not any(mirror.conflicted or mirror.refused for mirror in held)
    await client.bus.close()
    own_mesh.stop()
    for name in own_mesh.files.nodes:
        permits, incidents = await _permits(own_mesh, name)
        assert incidents == []
        assert {identity: permits.get(identity) for identity in answered} == {key: [value] for key, value in answered.items()}, name
    assert len(answered) > 20
    assert max(waited) < 2.0, "the backup kept somebody waiting"


async def _permits(mesh: Cluster, name: str) -> tuple[dict[str, list[str]], list[str]]:
    """By that node's file: the authorizations of each intent in the log of `NAME`, and incidents of any log."""
    store = await Store.open(_data(mesh, name) / "node.db", owner=name)
    permits, incidents = dict[str, list[str]](), list[str]()
    for origin, size in (await store.sizes()).items():
        for leaf in [leaf for first in range(0, size, 100) for leaf in await store.records(origin, first, min(100, size - first))]:
            record = read_record(leaf)
            if isinstance(record, DecisionMade) and record.authorization and origin == ORIGIN:
                permits.setdefault(record.intent, []).append(record.authorization)
            if isinstance(record, Incident):
                incidents.append(f"{origin} {record.code}")
    await store.close()
    return permits, incidents
