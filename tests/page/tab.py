"""Proofs judged by the page's program, many in one page load."""

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from mesh.errors import Refused
from mesh.page.render import render
from mesh.verify import verify
from tests.support.browser import Tab
from tests.support.proofs import happened

__all__ = ["Judge", "Said", "said_here"]

_AT_ONCE: Final = 200
_PIN: Final = re.compile("#pin=[0-9a-f]{64}")
_PROGRAM: Final = """
globalThis.judgeAll = async (anchor, bundles) => {
  const said = [];
  for (const bundle of bundles) {
    const report = await Proof.judge(Proof.fromBase64(bundle), Proof.fromBase64(anchor), "reader");
    said.push([report.verdict, report.checks.map((check) => [check.name, check.result, check.code, check.detail])]);
  }
  return said;
};
"""


class Said(NamedTuple):
    """What came of a proof."""

    verdict: str
    results: dict[str, str]
    """Check to result."""
    failure: tuple[str, str]
    """Check and code that failed, if one did."""


class Judge:
    """The page of a proof, open."""

    def __init__(self, tab: Tab, folder: Path) -> None:
        self.tab, self.folder = tab, folder
        self.page = folder / "proof.html"
        self._ready = False

    def show(self, bundle: bytes, roster: bytes, fragment: str = "", *, confirm: bool = True) -> dict[str, Any]:
        """Open the page of that proof, by a link with that fragment, whose pin the reader confirms; what it says of itself."""
        self.page.write_bytes(render(bundle, roster))
        self._ready = False
        self.tab.open(self.page, fragment)
        report: dict[str, Any] = self.tab.value("Page.ready")
        if confirm and _PIN.fullmatch(fragment):
            report = self.tab.value("document.getElementById('confirm').click(); Page.latest()")
        return report

    def text(self, element: str) -> str:
        """What a person reads there."""
        found: str = self.tab.value(f"document.getElementById({json.dumps(element)}).innerText")
        return found

    def says(self, element: str) -> str:
        """The expression for what stands there."""
        return f"document.getElementById({json.dumps(element)}).textContent"

    def all(self, bundles: Sequence[bytes], roster: bytes) -> list[Said]:
        """What the page's program says of each, by this roster, pinned."""
        if not self._ready:
            self.show(happened().proof(happened().late), happened().lab.roster_envelope)
            self.tab.value(f"{_PROGRAM}; true")
            self._ready = True
        found = list[Said]()
        for at in range(0, len(bundles), _AT_ONCE):
            given = json.dumps([base64.b64encode(bundle).decode() for bundle in bundles[at : at + _AT_ONCE]])
            answer = self.tab.value(f"judgeAll({json.dumps(base64.b64encode(roster).decode())}, {given})")
            for verdict, checks in answer:
                failure = next(((name, code) for name, result, code, _ in checks if result == "failed"), ("", ""))
                found.append(Said(verdict, {name: result for name, result, _, _ in checks}, failure))
        return found


def said_here(bundle: bytes, roster: bytes) -> Said:
    """What `mesh verify` says, without an engine."""
    try:
        report = verify(bundle, trust=roster)
    except Refused as refusal:
        return Said("FAILED", {}, ("file", refusal.code))
    failure = next(((check.name, check.code) for check in report.checks if check.result == "failed"), ("", ""))
    return Said(report.verdict, {check.name: check.result for check in report.checks}, failure)
