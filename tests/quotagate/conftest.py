from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.quotagate.configuration.planes import Plane, catalogue, opened


@pytest.fixture(scope="session")
def plane(
    postgres_server: str, postgres_template: str, application_login: str, stack_directory: Path
) -> Iterator[Plane]:
    """A control plane with the catalogue. Tests that share it make organizations of their own."""
    with opened(postgres_server, postgres_template, application_login, stack_directory) as plane:
        plane.ask("PUT", "/v1/plans", {"plans": catalogue()})
        yield plane
