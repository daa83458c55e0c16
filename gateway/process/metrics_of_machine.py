"""Metrics of what is around the workers: certificates that the settings name, and the disk of the journal. They are
looked at when somebody asks."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prometheus_client.core import Metric

from common.certificate_dates import Until, authorities_until, ends_of, own_until
from common.exposition import Family
from common.redis_certificates import certificate_files as of_redis
from gateway.process.metric_families import OF_WORKERS
from gateway.settings.root import GatewaySettings

CERTIFICATES: Final = Family(
    "quotagate_certificate_expires_timestamp_seconds",
    "gauge",
    "When a certificate that the settings name ends, seconds since 1970; 0 where its file cannot be read. Of a file of "
    "authorities, the last one.",
    ("file",),
)
JOURNAL_DISK: Final = Family("quotagate_journal_disk_bytes", "gauge", "Size of the disk that holds degraded.journal.")
JOURNAL_FREE: Final = Family("quotagate_journal_disk_free_bytes", "gauge", "What the gateway can still write there.")

FAMILIES: Final = (*OF_WORKERS, CERTIFICATES, JOURNAL_DISK, JOURNAL_FREE)
"""All metrics of the gateway."""


def of_machine(settings: GatewaySettings) -> Iterator[Metric]:
    ends = {(str(file),): ends_of(file, until) for file, until in certificate_files(settings)}
    yield CERTIFICATES.of(ends)
    if (journal := settings.degraded.journal) is not None:
        try:
            disk = os.statvfs(journal)
        except OSError:  # it is made by the first worker
            return
        yield JOURNAL_DISK.one(disk.f_blocks * disk.f_frsize)
        yield JOURNAL_FREE.one(disk.f_bavail * disk.f_frsize)


def certificate_files(settings: GatewaySettings) -> Iterator[tuple[Path, Until]]:
    """The files that hold certificates, and how long those of each file last."""
    if (listener := settings.listen.tls) is not None:
        for shown in listener.certificates:
            yield shown.cert_file, own_until
        if listener.client_certificates is not None:
            yield listener.client_certificates.ca_file, authorities_until
    yield from of_redis(settings.redis.url.get_secret_value())
    for upstream in settings.upstreams.values():
        if upstream.tls is not None:
            if upstream.tls.cert_file is not None:
                yield upstream.tls.cert_file, own_until
            if upstream.tls.ca_file is not None:
                yield upstream.tls.ca_file, authorities_until
