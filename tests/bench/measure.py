"""How long people's questions take, and how much memory, on a mesh that :mod:`tests.bench.manyrecords` has filled.

    python -m tests.bench.measure FOLDER [--only WORD]

starts the mesh of FOLDER again and runs each command as people do, as a process of its own; its largest memory is what the kernel
says. The median of three, one where it takes long. Times of two machines are not compared; those of two folders measured by turns are.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from mesh.dev.cluster import Cluster
from tests.bench.manyrecords import RARE, stored
from tests.live.kit import until_fresh

__all__ = ["Measured", "ask"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_ROUNDS: Final = 3
_LONG_S: Final = 6.0


class Measured(NamedTuple):
    """One command."""

    status: int
    out: str
    err: str
    seconds: float
    cpu_s: float
    """Of the command alone, not of the nodes that it asks: what a busy machine changes least."""
    rss_mib: float


def _of(code: Path) -> dict[str, str]:
    """The environment in which that tree is imported, whatever the working directory holds."""
    return {"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}


def ask(cluster: Cluster, *arguments: str, code: Path = _ROOT) -> Measured:
    """Run it against that mesh, as it stands in ``code``."""
    argv = [sys.executable, "-m", "mesh.cli", "--context", str(cluster.files.context), "-o", "json", *arguments]
    out, err = cluster.files.folder / "out.txt", cluster.files.folder / "err.txt"
    with out.open("wb") as to, err.open("wb") as errors:
        began = time.monotonic()
        pid = os.posix_spawn(
            sys.executable,
            argv,
            {**os.environ, **_of(code)},
            file_actions=[(os.POSIX_SPAWN_DUP2, to.fileno(), 1), (os.POSIX_SPAWN_DUP2, errors.fileno(), 2)],
        )
        _, status, usage = os.wait4(pid, 0)
        took_s = time.monotonic() - began
    return Measured(
        os.waitstatus_to_exitcode(status),
        out.read_text("utf-8"),
        err.read_text("utf-8"),
        took_s,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1024,
    )


def _rss_mib(pid: int, what: str = "VmRSS") -> float:
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("utf-8"))
    return int(found[1]) / 1024 if found else 0.0


def _questions(cluster: Cluster) -> dict[str, list[str]]:
    listed: list[dict[str, Any]] = json.loads(ask(cluster, "lineage", "ls", "--action", "send", "--effect", "permit", "-n", "400").out)
    permit = listed[-1]["intent"]
    folder = cluster.files.folder
    sizes = {row["node"]: row["log"] for row in json.loads(ask(cluster, "status").out)}
    first = json.loads(ask(cluster, "lineage", "show", "eu-1/60").out)[0]["record"]["at_ms"]
    half = json.loads(ask(cluster, "lineage", "show", f"eu-1/{sizes['eu-1'] // 2}").out)[0]["record"]["at_ms"]
    when = [time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1_000)) + "Z" for ms in (half, half + 1_000)]
    began = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(first // 1_000 + 1)) + "Z"
    ls = ["lineage", "ls"]
    return {
        "status": ["status"],
        "prove": ["prove", permit, "--out", str(folder / "proof.json")],
        "verify": ["verify", str(folder / "proof.json")],
        "why": ["why", permit],
        "why, old": ["why", "eu-1/60"],
        "graph": ["lineage", "graph", permit, "--format", "json"],
        "ls": ls,
        "ls -n 1000": [*ls, "-n", "1000"],
        "ls --kind": [*ls, "--kind", "denied"],
        "ls --effect deny": [*ls, "--effect", "deny"],
        "ls --effect deny --node": [*ls, "--effect", "deny", "--node", "us-1"],
        "ls --action": [*ls, "--action", "payments/send"],
        "ls --domain": [*ls, "--domain", "payments"],
        "ls --code": [*ls, "--code", "action_unknown"],
        "ls --since --until (1 s in the middle)": [*ls, "--since", when[0], "--until", when[1], "-n", "1000"],
        "ls --until (the first second)": [*ls, "--until", began],
        "ls --actor (1 of 1000)": [*ls, "--actor", RARE],
        "ls --actor PREFIX*, all of them": [*ls, "--actor", RARE[:-2] + "*", "-n", "1000"],
        "ls --code, nothing found": [*ls, "--code", "stale"],
        "ls --actor, nothing found": [*ls, "--actor", "spiffe://dev/agent/nobody"],
        "audit export (1 s in the middle)": ["audit", "export", "--from", when[0], "--to", when[1], "--out", str(folder / "range.arc")],
        "verify of that": ["verify", str(folder / "range.arc"), "-o", "jsonl", "--no-replay"],
        "audit sample -n 100": ["audit", "sample", "-n", "100"],
        "audit run --once": ["audit", "run", "--once"],
    }


def _main() -> None:
    parser = argparse.ArgumentParser(description="Measure.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="questions with this word only")
    parser.add_argument("--code", type=Path, default=_ROOT, help="the tree that nodes and commands are of")
    given = parser.parse_args()
    with Cluster(stored(given.folder), env=_of(given.code)) as cluster:
        cluster.start_bus()
        asyncio.run(cluster.provision())
        began = time.monotonic()
        cluster.start()
        asyncio.run(until_fresh(cluster))
        print(f"{'start of 4 nodes until all are fresh':40} {time.monotonic() - began:7.2f} s")  # noqa: T201 -- a script
        cluster.stop(["us-1"])
        began = time.monotonic()
        cluster.start(["us-1"])
        print(f"{'start of one node until it is ready':40} {time.monotonic() - began:7.2f} s")  # noqa: T201
        for name, arguments in _questions(cluster).items():
            if not re.search(given.only, name):
                continue
            shutil.rmtree(given.folder / "auditor", ignore_errors=True)
            runs = [ask(cluster, *arguments, code=given.code)]
            while len(runs) < _ROUNDS and runs[0].seconds < _LONG_S:
                runs.append(ask(cluster, *arguments, code=given.code))
            seconds, cpu_s, rss = median(run.seconds for run in runs), median(run.cpu_s for run in runs), max(run.rss_mib for run in runs)
            told = f"{len(json.loads(runs[0].out)):6} rows" if name.startswith("ls") and runs[0].status == 0 else ""
            print(f"{name:40} {seconds:7.2f} s ({cpu_s:6.2f} here) {rss:6.0f} MiB  exit {runs[0].status} {told}", flush=True)  # noqa: T201
            if runs[0].status:
                print(f"    {runs[0].err.splitlines()[-2:]}")  # noqa: T201
            if name == "audit run --once":
                print("    " + ", ".join(f"{key} {value}" for key, value in json.loads(runs[0].out).items()))  # noqa: T201
        for name, process in cluster.nodes.items():
            print(f"{'memory of ' + name:40} {_rss_mib(process.pid):7.0f} MiB, at most {_rss_mib(process.pid, 'VmHWM'):.0f}")  # noqa: T201


if __name__ == "__main__":
    _main()
