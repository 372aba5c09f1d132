"""What people ask of thousands of records costs no more questions than of a hundred, and each is answered soon.

Nobody's patience is measured: the ceilings are ten times and more what a busy machine of two cores needs. Figures at 100,000 records are in
docs/performance.md.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import pytest

from mesh.cli import client, run
from mesh.core.bytes.canonical import Payload
from mesh.dev.cluster import Cluster
from mesh.limits import BATCH_RECORDS_MAX
from tests.bench.manyrecords import RARE, USUAL, fill, make
from tests.bench.measure import ask
from tests.live.kit import until_fresh

RECORDS: Final = 4_000
SOON_S: Final = 20.0
T = TypeVar("T", bound=Payload)


class Asked(NamedTuple):
    """What a command printed, and how often it asked for what."""

    value: Any
    questions: Counter[str]
    seconds: float


class Questions:
    """Runs commands in this process, and counts."""

    def __init__(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.cluster, self.capsys = cluster, capsys
        self.count = Counter[str]()
        honest = client.MeshClient.ask

        async def counted(mesh: client.MeshClient, member: str, message: Payload, kind: type[T]) -> T:
            self.count[type(message).__name__] += 1
            return await honest(mesh, member, message, kind)

        monkeypatch.setattr(client.MeshClient, "ask", counted)

    def __call__(self, *arguments: str) -> Asked:
        self.count.clear()
        began = time.monotonic()
        status = run(["--context", str(self.cluster.files.context), "-o", "json", *arguments])
        took_s = time.monotonic() - began
        shown = self.capsys.readouterr()
        assert status == 0, shown.err
        assert took_s < SOON_S, arguments
        return Asked(json.loads(shown.out) if shown.out else None, Counter(self.count), took_s)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Four governors with some thousand records."""
    with Cluster(make(tmp_path_factory.mktemp("full") / "mesh")) as cluster:
        cluster.start_bus()
        asyncio.run(cluster.provision())
        cluster.start()
        asyncio.run(until_fresh(cluster))
        assert asyncio.run(fill(cluster, RECORDS, chunk=400)) >= RECORDS
        yield cluster


@pytest.fixture
def questions(full: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Questions:
    return Questions(full, monkeypatch, capsys)


def test_the_newest_and_one_execution_take_as_many_questions_as_of_a_small_log(questions: Questions) -> None:
    listed = questions("lineage", "ls", "--effect", "permit", "--actor", USUAL)
    assert (len(listed.value), all(row["final"] for row in listed.value)) == (20, True)
    assert listed.questions["Prove"] <= 16
    intent = listed.value[0]["intent"]
    for arguments in (("why", intent), ("why", "eu-1/40"), ("lineage", "graph", intent), ("lineage", "show", intent)):
        asked = questions(*arguments, *(["--format", "json"] if "graph" in arguments else []))
        assert asked.questions["Prove"] <= 16, arguments
        assert asked.questions["Pull"] + asked.questions["Leaves"] == 0, arguments


def test_a_search_through_everything_asks_for_pages_and_not_for_records(questions: Questions) -> None:
    rare = questions("lineage", "ls", "--actor", RARE, "-n", "100")
    assert [row["actor"] for row in rare.value] == [RARE] * len(rare.value)
    assert len(rare.value) >= 1
    nothing = questions("lineage", "ls", "--code", "stale")
    pages = RECORDS // BATCH_RECORDS_MAX
    assert nothing.value == []
    assert nothing.questions["Leaves"] <= 2 * pages
    assert nothing.questions["Pull"] == 0
    assert nothing.questions["Prove"] <= pages, "one for a stretch of a thousand"


def test_a_moment_long_ago_is_found_by_halves(questions: Questions) -> None:
    (first,) = questions("lineage", "show", "eu-1/200").value
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(first["record"]["at_ms"] // 1_000 + 1))
    listed = questions("lineage", "ls", "--node", "eu-1", "--until", at)
    assert len(listed.value) == 20
    assert all(row["at"] < at for row in listed.value)
    assert listed.questions["Leaves"] <= RECORDS.bit_length()
    assert listed.questions["Pull"] <= 2


def test_a_search_keeps_no_more_in_memory_than_it_lists(full: Cluster) -> None:
    few, whole = ask(full, "lineage", "ls", "-n", "5"), ask(full, "lineage", "ls", "--code", "stale")
    assert (few.status, whole.status) == (0, 0)
    assert whole.rss_mib < few.rss_mib + 40, "4,000 records and their statements would be more"


def test_an_auditor_judges_all_of_it(full: Cluster) -> None:
    judged = ask(full, "audit", "run", "--once")
    found = json.loads(judged.out)
    assert (judged.status, found["mismatch"], found["findings"]) == (0, 0, [])
    assert found["final"] == found["records"] >= RECORDS
    assert judged.seconds < 60


def test_a_span_is_exported_and_verified(full: Cluster, tmp_path: Path) -> None:
    rows = json.loads(ask(full, "lineage", "ls", "--kind", "decision", "--node", "us-1", "-n", "10").out)
    out = tmp_path / "span.archive"
    made = ask(full, "audit", "export", "--node", "us-1", "--from", rows[-1]["at"], "--out", str(out))
    assert made.status == 0, made.err
    assert json.loads(made.out)["verified"] >= 10
    assert ask(full, "verify", str(out), "--no-replay").status == 0
