"""A real governor with a door: others read its log and cosign it, and nothing that is committed or waits outside touches the mesh."""

import asyncio
import re
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tlog_scales.backend import HttpBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey, VkeySet

from mesh.core.bytes import envelope
from mesh.core.law.roster import Roster
from mesh.core.log.checkpoint import cosigner, log_verifier
from mesh.core.run.params import Opening, commit
from mesh.dev.cluster import Cluster
from mesh.roles.config import load_config
from tests.core.kit import secret
from tests.live.kit import Client, code_of, make_files
from tests.roles.witnesskit import Process, configure
from tests.support.foreign import foreign_witness

pytestmark = pytest.mark.asyncio

MEMO = "the-memo-of-a-committed-parameter"


class Shown(NamedTuple):
    cluster: Cluster
    name: str
    rust: str
    ours: str

    @property
    def url(self) -> str:
        found = re.findall(r"^listening (\d+)$", self.cluster.log(self.name).read_text(), re.MULTILINE)
        return f"http://127.0.0.1:{found[-1]}/dev/{self.name}/e1"


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Shown]:
    """A mesh of four, of which the first has a door, a witness of another maker, one of ours, and one that never answers."""
    files = make_files(tmp_path / "mesh")
    roster = envelope.read(Roster, files.roster.read_bytes()).claims
    name = files.nodes[0]
    member = roster.member(name)
    vkey = log_verifier(roster.origin(member), member.log_key).vkey
    silent = socket.create_server(("127.0.0.1", 0))
    mesh_table = f'[meshes.dev]\nroster = "../mesh/roster.json"\npin = "{files.pin}"\n'
    ours = Process(configure(tmp_path / "witness", more=mesh_table))
    own = cosigner("witness.example/w1", public_of(tmp_path / "witness")).vkey
    try:
        with foreign_witness(tmp_path, {roster.origin(member): vkey}) as (address, rust), Cluster(files) as cluster:
            never = f"http://127.0.0.1:{silent.getsockname()[1]}"
            stranger = cosigner("witness.example/silent", secret(77).public).vkey
            tables = {"rust": (address, rust), "ours": (ours.url, own), "silent": (never, stranger)}
            text = '\n[outside]\nlisten = "127.0.0.1:0"\n'
            text += "".join(f'[outside.witnesses.{word}]\nurl = "{url}"\nvkey = "{key}"\n' for word, (url, key) in tables.items())
            with files.node(name).open("a") as file:
                file.write(text)
            assert set(load_config(files.node(name)).outside.witnesses) == set(tables)
            cluster.start_bus()
            asyncio.run(cluster.provision())
            cluster.start()
            yield Shown(cluster, name, rust, own)
    finally:
        silent.close()
        assert ours.end() == 0


def public_of(folder: Path) -> str:
    return (folder / "witness.key").read_text().split()[2]


async def test_others_read_verify_and_cosign_the_log_of_a_governor_and_see_no_committed_value(shown: Shown) -> None:
    client = await Client.connect(shown.cluster.files.context)
    await client.until(shown.name, "fresh", lambda status: status.fresh)
    for number in range(20):
        opening = Opening(name="memo", salt=secrets.token_hex(16), value=f"{MEMO} {number}")
        intent = client.intent(amount=100 + number, committed={"memo": commit(opening)})
        assert code_of(await client.send(client.request(intent, [opening])[1])) == "authorized"
    status = await client.until(shown.name, "certified", lambda status: status.certified >= 20)
    witnesses = VkeySet(Vkey.from_string(shown.rust), Vkey.from_string(shown.ours))
    size, leaves, lines = 0, list[bytes](), 0
    for _ in range(200):
        size, leaves, lines = await asyncio.to_thread(_read, shown.url)
        if size >= status.certified and lines >= 2:
            break
        await asyncio.sleep(0.1)
    assert size >= 20
    assert len(leaves) == size
    assert sum(b'"record":"decision"' in leaf for leaf in leaves) >= 20
    assert not [leaf for leaf in leaves if MEMO.encode() in leaf]
    checkpoint = TilesReader(HttpBackend(shown.url)).get_checkpoint()
    assert len(witnesses.verify(checkpoint.signatures, checkpoint)) == 2
    counters = (await client.status(shown.name)).counters
    assert counters["witness_lines"] >= 2
    assert counters["witness_failures"] >= 1  # the silent one; everything went on meanwhile
    await client.bus.close()


def _read(url: str) -> tuple[int, list[bytes], int]:
    """Size, entries and the count of witnesses' lines, all verified by tlog-scales."""
    reader = TilesReader(HttpBackend(url))
    try:
        checkpoint = reader.get_checkpoint()
    except RuntimeError:
        return 0, [], 0
    assert reader.calculate_root_hash() == checkpoint.root_hash
    leaves = [reader.get_entry(index) for index in range(checkpoint.size)]
    return checkpoint.size, leaves, sum(line.name.startswith("witness.example/") for line in checkpoint.signatures)
