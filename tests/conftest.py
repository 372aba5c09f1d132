"""What holds for every test: nothing is left out silently, and with ``MESH_STRICT=1`` nothing is left out at all.

Not here: fixtures. Each area keeps its own beside its tests.
"""

import os
from collections.abc import Generator, Sequence
from typing import Final

import hypothesis
import pytest

__all__: Sequence[str] = []

STRICT: Final = os.environ.get("MESH_STRICT") == "1"
"""Set by CI: a test that is skipped, deselected or expected to fail is a failure."""

# No deadline: two busy cores make honest code slow. Under CI the examples are the same in every run, so that a red run means
# a changed tree; people at their desks explore.
hypothesis.settings.register_profile("desk", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if STRICT else "desk")

_left_out = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_left_out] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _note(item.config, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _note(collector.config, report)
    return report


def _note(config: pytest.Config, report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped:
        return
    detail = report.longrepr
    reason = getattr(report, "wasxfail", None) or (detail[2] if isinstance(detail, tuple) else str(detail))
    config.stash[_left_out].append(f"{report.nodeid}: {reason}")
    if STRICT:
        report.outcome = "failed"
        report.longrepr = f"left out, which MESH_STRICT forbids: {reason}"


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        item.config.stash[_left_out].append(f"{item.nodeid}: deselected")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if STRICT and session.config.stash[_left_out] and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    left_out = terminalreporter.config.stash[_left_out]
    terminalreporter.section(f"left out: {len(left_out) or 'nothing'}")
    for line in left_out:
        terminalreporter.write_line(line)
