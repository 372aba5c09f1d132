"""Whoever names the nodes takes one in by commands alone: planned, signed by three, pushed, and acted under when it begins."""

import asyncio
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from mesh.adapters import signer
from mesh.cli import roster_words as words
from mesh.deploy.devmesh import enlist
from mesh.dev.cluster import Cluster
from tests.live.kit import Said, make_files


def _until_all_act_under(said: Said, epoch: int, names: set[str]) -> list[dict[str, Any]]:
    end = time.monotonic() + 25.0
    while True:
        status, rows, err = said("peer", "ls")
        if status == 0 and {row["node"] for row in rows if row["acts_under"] == epoch and row["state"] == "fresh"} == names:
            return list(rows)
        assert time.monotonic() < end, (rows, err)
        time.sleep(0.2)


def test_a_node_is_taken_in_by_commands_alone(tmp_path: Path, said: Said) -> None:
    files = make_files(tmp_path / "mesh", spares=1)
    people, (spare,), file = files.folder / "people", files.spares, str(tmp_path / "roster-2.json")
    with Cluster(files) as cluster:
        cluster.start_bus()
        asyncio.run(cluster.provision())
        cluster.start()
        _until_all_act_under(said, 1, set(files.nodes))
        keys = str(files.folder / "nodes" / spare / "keys")
        plan = ["roster", "add", spare, "--region", "af", "--keys", keys, "--begins", "+16s", "--out", file]
        status, shown, err = said(*plan)
        assert (status, shown["k"], shown["overlap"]["shared"]) == (0, 4, 2), err
        for name in ("root-1", "operator-dev", "root-2"):
            assert said("roster", "push", file)[0] == 5, "not before all have signed"
            assert said("roster", "sign", file, "--key", str(people / f"{name}.key"))[0] == 0
        status, shown, err = said("roster", "push", file, "--follow", "--wait", "20")
        assert (status, shown["held"] >= 3, shown["acting"]) == (0, True, 4), err
        acts = {row["node"]: row["acts_ms"] for row in shown["members"]}
        assert acts.pop(spare) is None, "it does not run yet"
        enlist(files, spare, [Path(file)], words.read(Path(file)).id)
        cluster.start([spare])
        rows = _until_all_act_under(said, 2, {*files.nodes, spare})
        assert {row["operator"] for row in rows} == {"dev"}
        status, rows, err = said("roster", "ls")
        assert [(row["epoch"], row["state"], len(row["acting"])) for row in rows] == [(1, "former", 0), (2, "in force", 5)], err
        status, shown, err = said("peer", "ping", spare, "-c", "3")
        assert (status, shown["answered"]) == (0, 3), err
        status, shown, err = said("trust", "--at-least", "2")
        assert (status, shown["epoch"], shown["n"]) == (2, 2, 5), "one machine is one owner, however many it runs"


def test_a_node_whose_storage_was_set_back_goes_on_in_a_new_log_under_new_keys_although_another_is_down(tmp_path: Path, said: Said) -> None:
    files = make_files(tmp_path / "mesh", nodes=5)
    file, folder, new = str(tmp_path / "roster-2.json"), files.folder / "nodes" / "sa-1", tmp_path / "new"
    new.mkdir()
    for use in ("log", "witness", "attest", "decision"):
        signer.generate(new / f"{use}.key", use, secrets.token_bytes(32))
    with Cluster(files) as cluster:
        cluster.start_bus()
        asyncio.run(cluster.provision())
        cluster.start()
        _until_all_act_under(said, 1, set(files.nodes))
        cluster.stop(["sa-1"])
        shutil.copytree(folder / "data", tmp_path / "old")
        cluster.start(["sa-1"])  # and signs more than that copy knows of
        _until_all_act_under(said, 1, set(files.nodes))
        status, shown, err = said("roster", "rotate", "sa-1", "--keys", str(new), "--begins", "+14s", "--out", file)
        assert (status, shown["k"], shown["overlap"]["shared"]) == (0, 4, 2), err
        keys = [str(files.folder / "people" / f"{name}.key") for name in ("root-1", "root-2", "operator-dev")]
        assert said("roster", "sign", file, "--key", keys[0], "--co-sign", keys[1], "--co-sign", keys[2])[1]["complete"]
        status, shown, err = said("roster", "push", file, "--follow", "--wait", "20")
        assert (status, shown["acting"]) == (0, 4), err
        cluster.nodes["sa-1"].wait(20.0)
        assert "not_enrolled" in cluster.log_tail("sa-1"), "with its former keys it is nobody"
        for path in new.iterdir():
            path.replace(folder / "keys" / path.name)
        config = folder / "node.toml"
        (line,) = (line for line in config.read_text().splitlines() if line.startswith("pin = "))
        config.write_text(config.read_text().replace(line, f'pin = "{shown["id"]}"\nstatements = ["{file}"]'))
        shutil.rmtree(folder / "data")
        shutil.copytree(tmp_path / "old", folder / "data")
        cluster.stop(["us-1"])  # with the former keys it would wait for that member, and sign nothing
        cluster.start(["sa-1"])
        _until_all_act_under(said, 2, {*files.nodes} - {"us-1"})
        status, shown, err = said("log", "checkpoint", "sa-1")
        assert (status, shown["origin"].rpartition("/")[2], len(shown["attested_by"]) >= 4) == (0, "e2", True), err
        listed = said("lineage", "ls", "--node", "sa-1")[1]
        assert {"sa-1@e1/0", "sa-1/0"} <= {row["record"] for row in listed}, "its log of before, and the one of now"
        assert said("lineage", "show", "sa-1@e1/0")[1][0]["record"]["origin"] == "dev/sa-1/e1"
        assert said("lineage", "show", "sa-1/0")[1][0]["record"]["origin"] == "dev/sa-1/e2"
