"""Until when certificates in files are valid."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from cryptography import x509

Until = Callable[[Path], datetime]
"""How long what is in a file lasts. Raises OSError, ValueError."""


def own_until(file: Path) -> datetime:
    """Of a certificate that is shown: the first one in the file. Raises OSError, ValueError."""
    return _read(file)[0].not_valid_after_utc


def authorities_until(file: Path) -> datetime:
    """When the last of the authorities in the file ends, then nobody is believed. Raises OSError, ValueError."""
    return max(certificate.not_valid_after_utc for certificate in _read(file))


def ends_of(file: Path, until: Until) -> float:
    """Unix time; 0 where the file cannot be read."""
    try:
        return until(file).timestamp()
    except (OSError, ValueError):
        return 0.0


def _read(file: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(file.read_bytes())
