"""Whose a certificate is."""

from pathlib import Path

from cryptography import x509


def dns_names_of(file: Path) -> frozenset[str]:
    """Those of the first certificate in a PEM file, in lower case. What is only the subject's common name counts for
    nothing (RFC 9525 section 2). Raises OSError and ValueError."""
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(name.lower() for name in names.get_values_for_type(x509.DNSName))


def matches(names: frozenset[str], host: str) -> bool:
    """Whether a certificate of these names is the host's. An asterisk stands for one label (RFC 9525 section 6.3)."""
    host = host.lower().removesuffix(".")
    _, dot, parent = host.partition(".")
    return host in names or (dot != "" and f"*.{parent}" in names)


def rfc4514(der: bytes) -> str:
    """The subject of a certificate as RFC 4514 writes it. Raises ValueError."""
    return x509.load_der_x509_certificate(der).subject.rfc4514_string()
