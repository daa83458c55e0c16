from pathlib import Path

import pytest

from tests.compiled.checkouts import Checkout, copied


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return copied(tmp_path / "checkout")
