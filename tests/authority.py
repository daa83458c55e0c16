"""A certificate authority of a test, which issues what the test asks for."""

import datetime
import ipaddress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = name(folder.name)
        self.ca_file = self._write("ca", self._certificate(self.subject, self.key, None), None)

    def issue(self, *names: str, days: int = 90) -> Path:
        """A PEM file with a certificate for these names, and its key. `days`: until it ends, or since it has."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = []
        for one in names:
            try:
                alternatives.append(x509.IPAddress(ipaddress.ip_address(one)))
            except ValueError:
                alternatives.append(x509.DNSName(one))
        return self._write(names[0], self._certificate(name(names[0]), key, alternatives, days), key)

    def _certificate(
        self, subject: x509.Name, key: Any, names: list[x509.GeneralName] | None, days: int = 365
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1, days=max(0, -days)))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
        )
        if names is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def _write(self, label: str, certificate: x509.Certificate, key: Any) -> Path:
        path = self.folder / f"{label}.pem"
        text = certificate.public_bytes(serialization.Encoding.PEM)
        if key is not None:
            form = serialization.PrivateFormat.PKCS8
            text += key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        path.write_bytes(text)
        return path
