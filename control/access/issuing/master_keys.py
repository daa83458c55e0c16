"""Master keys seal the private signing keys that are in the database: AES-256-GCM (NIST SP 800-38D). Pure.

A sealed text is `1` (one byte, the form), the id of the master key, a random nonce, and what AES-GCM makes of the
private key with the signing key's id as associated data: a sealed text that is moved to another row does not open.
"""

import secrets
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORM: Final = b"\x01"
ID_BYTES: Final = 8
NONCE_BYTES: Final = 12  # random: NIST allows 2**32 of them for one key, and a signing key takes one
_HEAD_BYTES: Final = len(FORM) + ID_BYTES + NONCE_BYTES


class SealBroken(Exception):
    """A sealed private key does not open with the master keys of the settings; the message says why, without a key."""


def id_of(master_key: bytes) -> bytes:
    return sha256(b"quotagate master key " + master_key).digest()[:ID_BYTES]


class MasterKeys:
    """The first one seals; all of them open."""

    def __init__(self, master_keys: Sequence[bytes]) -> None:
        self._ciphers = {id_of(each): AESGCM(each) for each in master_keys}
        self._first = id_of(master_keys[0])

    def __repr__(self) -> str:
        return f"MasterKeys({', '.join(each.hex() for each in self._ciphers)})"

    def seal(self, private_key: bytes, key_id: str) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return FORM + self._first + nonce + self._ciphers[self._first].encrypt(nonce, private_key, key_id.encode())

    def open(self, sealed: bytes, key_id: str) -> bytes:
        """Raises SealBroken."""
        if len(sealed) <= _HEAD_BYTES or not sealed.startswith(FORM):
            raise SealBroken("it is damaged, or a newer release has sealed it")
        master_id, nonce = sealed[len(FORM) :][:ID_BYTES], sealed[len(FORM) + ID_BYTES : _HEAD_BYTES]
        cipher = self._ciphers.get(master_id)
        if cipher is None:
            known = ", ".join(each.hex() for each in self._ciphers)
            raise SealBroken(f"the master key {master_id.hex()} sealed it, and the settings have {known}")
        try:
            return cipher.decrypt(nonce, sealed[_HEAD_BYTES:], key_id.encode())
        except InvalidTag:
            raise SealBroken("it is damaged, or belongs to another signing key") from None

    def is_sealed_by_first(self, sealed: bytes) -> bool:
        return sealed.startswith(FORM + self._first)
