"""One browser for all tests of the page."""

from collections.abc import Iterator

import pytest

from tests.page.tab import Judge
from tests.support.browser import CHROMIUM, browser


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """A page that is open in a real browser, and what else to do with that browser."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with browser() as tab:
        yield Judge(tab, tmp_path_factory.mktemp("page"))
