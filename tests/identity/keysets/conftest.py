"""A key set that is read from an issuer, at times that the test makes."""

from collections.abc import AsyncIterator, Iterator

import pytest

from identity.keysets.keyset import KeySet
from tests.identity.keysets.issuing import Issuer, Time, settings


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    server = Issuer()
    yield server
    server.close()


@pytest.fixture
async def time() -> Time:
    return Time()


@pytest.fixture
async def keys(issuer: Issuer, time: Time) -> AsyncIterator[KeySet]:
    key_set = KeySet.of(settings(issuer.url), time.clock, time.sleep)
    await key_set.start()
    yield key_set
    await key_set.close()
