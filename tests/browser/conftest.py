from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.running import Console, browser, console_running, new_page

__all__ = ["browser"]


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = new_page(browser)
    yield page
    page.context.close()


@pytest.fixture(scope="module")
def console(
    tmp_path_factory: pytest.TempPathFactory, postgres_dsn: str, application_login: str, valkey: str
) -> Iterator[Console]:
    dsn = f"postgresql://{application_login}@{postgres_dsn.partition('@')[2]}"
    with console_running(tmp_path_factory.mktemp("console"), dsn, valkey) as running:
        yield running


@pytest.fixture
def scripted(browser: Browser) -> Iterator[Page]:
    """A page of ours that may run scripts, as those of the console proper will. Its policy is off, and nothing else."""
    page = new_page(browser, bypass_csp=True)
    yield page
    page.context.close()
