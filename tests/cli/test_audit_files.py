"""An auditor comes to the same verdict from an export, a proof or a node's file, offline and with the real policy engine."""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mesh.adapters.store import Store
from mesh.cli import client
from mesh.core.bytes import envelope
from mesh.core.law.retain import Retain
from mesh.core.log.archive import Packer, Unpacker
from mesh.core.log.bundle import read_proof
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.record import read_record
from mesh.protocol.attester import located_ids
from mesh.protocol.step import Append, Locate, Persist, PutBody, PutLaw, PutNote, PutOpenings
from tests.cli.shell import Shell
from tests.support.littlemesh import Node
from tests.support.proofs import Happened
from tests.support.retains import retain

Said = tuple[int, Any, str]


@pytest.fixture
def trusting(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell whose context trusts the lab."""
    _trust(shell, monkeypatch)
    return shell


def _trust(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = shell.story.lab
    library = client.Library(
        governance=lab.governance, manifests=(lab.manifest_envelope,), bundles=(lab.bundle_bytes,), roster=lab.roster_envelope
    )
    monkeypatch.setattr(client, "files", lambda _cli: library)


def _audit(shell: Shell, *files: Path, more: Sequence[str] = ()) -> Said:
    given = [part for file in files for part in ("--from", str(file))]
    status, out, err = shell.run("-o", "json", "audit", "run", *given, *more)
    return status, json.loads(out) if out else None, err


def _export(shell: Shell, tmp_path: Path) -> Path:
    out = tmp_path / "all.jsonl"
    shell.json("audit", "export", "--out", str(out))
    return out


def _repacked(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    unpacker, packer = Unpacker(), Packer()
    proofs = [data for line in path.read_bytes().splitlines(keepends=True) if (data := unpacker.take(line)) is not None]
    path.write_bytes(packer.begin() + b"".join(packer.add(read_proof(data)) for data in change(proofs)) + packer.end())


async def _filed(node: Node, path: Path, story: Happened) -> None:
    """What that node holds, in a file of its own."""
    lab = story.lab
    store = await Store.open(path, owner=node.name)
    for origin, leaves in sorted(node.logs.items()):
        effects: list[Persist] = [Append(origin, 0, tuple(leaves), tuple(map(leaf_hash, leaves)))]
        for index, leaf in enumerate(leaves):
            effects += [Locate(name, origin, index) for name in located_ids(read_record(leaf))]
        await store.commit(effects)
    documents = {envelope.identify(data)[1] for data in (lab.identity_envelope, lab.place_envelope)}
    await store.commit([PutBody(name, "identity" if name in documents else "intent", data) for name, data in node.bodies.items()])
    await store.commit([PutOpenings(name, data) for name, data in node.openings.items()])
    for (space, origin), notes in node.notes.items():
        if space == "certificate":
            await store.commit([PutNote("certificate", origin, size, note) for size, note in sorted(notes.items())])
    await store.close()


def _file_of(story: Happened, name: str, tmp_path: Path) -> Path:
    path = tmp_path / f"{name}.db"
    asyncio.run(_filed(story.mesh.nodes[name], path, story))
    return path


NUMBERS = ("records", "final", "match", "mismatch", "unverifiable", "starts_match", "found", "alarms_standing")


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value[name] for name in NUMBERS)


# --------------------------------------------------------------------------------------------------------------- the same verdict


def test_an_export_and_every_nodes_file_have_the_same_verdict_offline(trusting: Shell, tmp_path: Path) -> None:
    final = sum(node.state.log.certified for node in trusting.story.mesh.nodes.values())
    status, value, err = _audit(trusting, _export(trusting, tmp_path))
    assert (status, value["caught_up"]) == (0, True), err
    assert _numbers(value) == (final, final, 2, 0, 0, 1, 0, 0)
    for name in ("eu-1", "sa-1"):
        path = _file_of(trusting.story, name, tmp_path)
        status, other, err = _audit(trusting, path)
        assert (status, _numbers(other)) == (0, _numbers(value)), err


def test_proofs_of_single_records_are_a_log_with_gaps(trusting: Shell, tmp_path: Path) -> None:
    one = tmp_path / "proof.json"
    trusting.run("prove", trusting.story.permitted, "-o", str(one))
    status, value, err = _audit(trusting, one)
    assert (status, value["caught_up"]) == (4, False)
    assert [(row["log"], row["record"]) for row in value["behind"]] == [("lab/eu-1/e1", 0)]
    assert "lab/eu-1/e1 could not be judged from record 0 on" in err


@pytest.mark.parametrize("removed", [0, 2, 3])
def test_an_export_with_one_record_removed_fails_and_names_its_index(trusting: Shell, tmp_path: Path, removed: int) -> None:
    out = _export(trusting, tmp_path)
    place = f'"index":{removed},'.encode()
    _repacked(out, lambda proofs: [data for data in proofs if not (b"lab/us-1/e1" in data[-90_000:] and _is(data, place))])
    status, value, err = _audit(trusting, out)
    assert (status, [(row["log"], row["record"]) for row in value["behind"]]) == (4, [("lab/us-1/e1", removed)])
    assert f"lab/us-1/e1 could not be judged from record {removed} on" in err


def _is(data: bytes, place: bytes) -> bool:
    record = bytes(read_proof(data).record)
    return b'"origin":"lab/us-1/e1"' in record and place in record


@pytest.mark.parametrize(
    "order",
    [lambda proofs: proofs[::-1], lambda proofs: [*proofs, *proofs], lambda proofs: proofs[1:] + proofs[:1]],
    ids=["reversed", "twice", "turned"],
)
def test_order_and_repetition_in_a_file_hide_nothing(trusting: Shell, tmp_path: Path, order: Callable[[list[bytes]], list[bytes]]) -> None:
    out = _export(trusting, tmp_path)
    _repacked(out, order)
    status, value, _ = _audit(trusting, out)
    assert value["mismatch"] == value["found"] == 0
    assert (status, value["caught_up"]) in {(0, True), (4, False)}
    assert status == 4 or value["match"] == 2


def test_what_was_erased_is_unverifiable_and_no_finding(own: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _trust(own, monkeypatch)
    for node in own.story.mesh.nodes.values():
        node.openings.clear()
    status, value, err = _audit(own, _file_of(own.story, "ap-1", tmp_path))
    assert (status, value["match"], value["unverifiable"], value["starts_unverifiable"]) == (0, 1, 1, 1), err


# ------------------------------------------------------------------------------------------------------------------- lies in files


def test_a_body_that_nobody_has_is_a_finding(own: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _trust(own, monkeypatch)
    del own.story.mesh.nodes["ap-1"].bodies[own.story.permitted]
    status, value, _ = _audit(own, _file_of(own.story, "ap-1", tmp_path))
    assert (status, [finding["code"] for finding in value["findings"]]) == (5, ["body_missing"])


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("UPDATE record SET data = CAST(replace(CAST(data AS TEXT), 'fresh', 'stale') AS BLOB)", "storage_corrupt"),
        ("UPDATE body SET envelope = zeroblob(9) WHERE n = 1", "storage_corrupt"),
        ("UPDATE note SET note = CAST(replace(CAST(note AS TEXT), 'lab', 'lob') AS BLOB)", "storage_corrupt"),
        ("PRAGMA application_id = 7", "config_invalid"),
    ],
)
def test_a_nodes_file_that_rotted_is_refused(trusting: Shell, tmp_path: Path, sql: str, code: str) -> None:
    path = _file_of(trusting.story, "sa-1", tmp_path)
    connection = sqlite3.connect(path)
    for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute(sql)
    connection.commit()
    connection.close()
    status, _, err = _audit(trusting, path)
    assert status in {1, 3, 5}
    assert f'"code": "{code}"' in err


def test_a_file_that_is_none_is_refused(trusting: Shell, tmp_path: Path) -> None:
    path = tmp_path / "some"
    for data in (b"", b"SQLite format 3\0", b'{"line":"begin","format":"govmesh/proof-archive/v1"}\n', b"{}"):
        path.write_bytes(data)
        assert _audit(trusting, path)[0] in {3, 5}
    assert _audit(trusting, tmp_path / "none")[0] == 3


# ------------------------------------------------------------------------------------------------------------------------ reports


def test_lines_of_json_hold_one_finding_each_and_the_numbers_last(own: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _trust(own, monkeypatch)
    swallowed = own.story.outcomes[0]
    del own.story.mesh.nodes["ap-1"].bodies[envelope.identify(swallowed)[1]]
    path = _file_of(own.story, "ap-1", tmp_path)
    status, out, _ = own.run("-o", "jsonl", "audit", "run", "--from", str(path))
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 5
    assert [(line["kind"], line.get("code")) for line in lines] == [
        ("finding", "body_missing"),
        ("alarm", "outcome_missing"),
        ("alarm", "start_missing"),
        ("summary", None),
    ]
    assert {line["severity"] for line in lines[1:3]} == {"tampering"}
    assert (lines[-1]["findings"], lines[-1]["alarms_standing"]) == (1, 2)


def test_an_alarm_that_says_only_that_not_all_was_seen_ends_with_4(own: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _trust(own, monkeypatch)
    lab, mesh = own.story.lab, own.story.mesh
    intent, data, openings = lab.intent(9, at_ms=mesh.now_ms)
    answer = mesh.request("eu-1", lab.request(data, openings))
    authorization = envelope.identify(bytes(answer.authorization))[1]  # type: ignore[union-attr]  # a permit
    last = envelope.identify(own.story.outcomes[-1])[1]
    mesh.report("us-1", lab.report([lab.outcome(intent, authorization, lab.started(), sequence=2, previous=last, at_ms=mesh.now_ms)]))
    mesh.run(6)
    path = _file_of(own.story, "ap-1", tmp_path)
    status, value, _ = _audit(own, path)
    assert (status, [alarm["code"] for alarm in value["alarms"]]) == (4, ["end_missing"])
    assert _audit(own, path, more=["--longest", "9999d"])[0] == 0


def test_metrics_are_a_file_that_prometheus_reads(own: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _trust(own, monkeypatch)
    del own.story.mesh.nodes["ap-1"].bodies[own.story.permitted]
    path, metrics = _file_of(own.story, "ap-1", tmp_path), tmp_path / "audit.prom"
    assert _audit(own, path, more=["--metrics", str(metrics)])[0] == 5
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.read_text())
        for sample in family.samples
    }
    assert found["mesh_audit_findings_kept", ("code", "body_missing")] == 1
    assert found["mesh_audit_decisions", ("verdict", "match")] == 1
    assert found["mesh_audit_alarms", ("code", "outcome_missing"), ("exit", "5")] == 0
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".new"] == []
    assert _audit(own, path, more=["--metrics", str(tmp_path / "no" / "where")])[0] == 3


async def _let_go(path: Path, owner: str, floors: dict[str, int], envelope_: bytes) -> None:
    """Prune that file below these floors, as the retention in this envelope allows."""
    store = await Store.open(path, owner=owner)
    said = envelope.read(Retain, envelope_)
    stream, sequence, _ = said.claims.link
    await store.commit([PutLaw(stream, sequence, said.id, said.envelope)])
    for origin, below in floors.items():
        await store.prune(origin, below=below, first=0, end=below)
    await store.close()


def test_a_file_that_was_pruned_is_judged_from_where_its_records_are_kept_and_its_hashes_are_counted(
    trusting: Shell, tmp_path: Path
) -> None:
    whole = _audit(trusting, _file_of(trusting.story, "eu-1", tmp_path))[1]
    node = trusting.story.mesh.nodes["eu-1"]
    floors = dict.fromkeys(sorted(node.logs), 2)
    path = tmp_path / "eu-1.db"
    asyncio.run(_let_go(path, "eu-1", floors, retain(trusting.story.lab, floors).envelope))
    status, value, err = _audit(trusting, path)
    assert (status, value["caught_up"], value["found"]) == (0, True, 0), err
    assert (value["records"], value["final"], value["pruned"]) == (whole["records"], whole["final"], 2 * len(floors))
