"""Keys of a set that verify nothing here, since others can sign with them. The keys are made as the flawed generators
made theirs."""

import json
import random
from base64 import urlsafe_b64encode
from hashlib import sha512
from math import isqrt, prod
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from jwt.algorithms import OKPAlgorithm

from identity.keysets.jwk import KeyUnusable, parse_key_set, usable_key
from identity.keysets.weak_keys import has_roca_structure, weakness_of_rsa

ACCEPTED = ("RS256", "EdDSA")
FIRST_PRIMES = [n for n in range(2, 1000) if all(n % d for d in range(2, isqrt(n) + 1))]
GOOD = rsa.generate_private_key(65537, 2048)


def is_prime(n: int) -> bool:
    """Fermat's test to three bases, enough for random numbers."""
    return all(n % p for p in FIRST_PRIMES) and all(pow(base, n - 1, n) == 1 for base in (2, 3, 5))


def prime_after(start: int, step: int = 2) -> int:
    while not is_prime(start):
        start += step
    return start


def roca_prime(bits: int, primes: int, chance: random.Random) -> int:
    """k * M + (65537 ^ a mod M), as in section 2 of the paper."""
    product = prod(FIRST_PRIMES[:primes])
    while True:
        residue = pow(65537, chance.randrange(product), product)
        low = (3 << (bits - 2)) // product
        candidate = (low + chance.randrange(low // 4)) * product + residue
        if is_prime(candidate):
            return candidate


def jwk_of(modulus: int, exponent: int = 65537) -> dict[str, Any]:
    def number(n: int) -> str:
        return urlsafe_b64encode(n.to_bytes((n.bit_length() + 7) // 8)).rstrip(b"=").decode()

    return {"kty": "RSA", "n": number(modulus), "e": number(exponent)}


@pytest.mark.parametrize(("bits", "primes"), [(1024, 126), (1536, 126), (1024, 39)])
def test_a_key_with_the_roca_structure_verifies_nothing(bits: int, primes: int) -> None:
    """Of 2048 and 3072 bits; the last as the shortest keys were made."""
    chance = random.Random(bits + primes)
    p, q = (roca_prime(bits, primes, chance) for _ in range(2))
    public, private = rsa.RSAPublicNumbers(65537, p * q), pow(65537, -1, (p - 1) * (q - 1))
    key = rsa.RSAPrivateNumbers(p, q, private, private % (p - 1), private % (q - 1), pow(q, -1, p), public)
    signed = jwt.encode({}, key.private_key(), "RS256")
    assert jwt.decode(signed, public.public_key(), ["RS256"]) == {}, "nothing but its structure is wrong with it"
    jwk = jwk_of(p * q)
    with pytest.raises(KeyUnusable, match="CVE-2017-15361"):
        usable_key(jwk, ACCEPTED)
    key_set = {"keys": [jwk, {**jwk_of(GOOD.public_key().public_numbers().n), "kid": "good"}]}
    assert [key.kid for key in parse_key_set(json.dumps(key_set).encode(), ACCEPTED)] == ["good"]


def test_no_other_modulus_has_the_roca_structure() -> None:
    chance = random.Random(1)
    assert not any(has_roca_structure(chance.getrandbits(2048) | 1) for _ in range(20_000))
    # A power of 65537 modulo each prime, yet of no one exponent: what a test of each prime by itself takes for one.
    modulus, residue = 1, 0
    for n, prime in enumerate(FIRST_PRIMES[1:39]):
        target = pow(65537, n * n, prime)
        while residue % prime != target:
            residue += modulus
        modulus *= prime
    assert not has_roca_structure(residue)
    assert has_roca_structure(pow(65537, 12345, modulus))


def weak_moduli() -> dict[str, tuple[int, int, str]]:
    chance = random.Random(2)
    p = prime_after(chance.getrandbits(1024) | 3 << 1022 | 1)
    good = GOOD.public_key().public_numbers().n
    return {
        "short": (good >> 1 | 1, 65537, "shorter than 2048 bits"),
        "long": (1 << 16_384 | 1, 65537, "longer than 16384 bits"),
        "exponent 1": (good, 1, "exponent"),
        "exponent 0": (good, 0, "exponent"),
        "even exponent": (good, 65536, "exponent"),
        "even modulus": (good + 1, 65537, "small factor"),
        "neighbours": (p * prime_after(p + 2), 65537, "close to each other"),
        "square": (p * p, 65537, "close to each other"),
    }


WEAK = weak_moduli()


@pytest.mark.parametrize("kind", WEAK)
def test_an_rsa_key_that_can_be_factored_or_does_not_sign_verifies_nothing(kind: str) -> None:
    modulus, exponent, reason = WEAK[kind]
    assert reason in (weakness_of_rsa(modulus, exponent) or "")
    with pytest.raises(KeyUnusable):
        usable_key(jwk_of(modulus, exponent), ACCEPTED)


@pytest.mark.parametrize("factor", [3, 5, 167, 997, 1999])
def test_a_modulus_with_a_small_factor_verifies_nothing(factor: int) -> None:
    other = random.Random(factor).getrandbits(2048) | 3 << 2046 | 1
    with pytest.raises(KeyUnusable, match="small factor"):
        usable_key(jwk_of(other * factor), ACCEPTED)


@pytest.mark.parametrize("exponent", [3, 17, 65537])
def test_a_sound_rsa_key_is_usable_with_each_usual_exponent(exponent: int) -> None:
    public = rsa.generate_private_key(65537 if exponent == 17 else exponent, 2048).public_key().public_numbers()
    assert usable_key(jwk_of(public.n, exponent), ACCEPTED).algorithms == {"RS256"}


P = 2**255 - 19
ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL_ORDER = [y | sign << 255 for y in (0, 1, P - 1, P, P + 1, ORDER_8, P - ORDER_8) for sign in (0, 1)]


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_an_ed25519_key_of_small_order_verifies_nothing(point: int) -> None:
    encoded = point.to_bytes(32, "little")
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": urlsafe_b64encode(encoded).rstrip(b"=").decode()}
    with pytest.raises(KeyUnusable, match="small order"):
        usable_key(jwk, ACCEPTED)


def test_with_a_key_of_small_order_anyone_would_sign() -> None:
    """What the test above keeps out: of the neutral element R = s * B is a signature of every text, for each s."""
    someone = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    digest = bytearray(sha512(bytes(32)).digest()[:32])
    digest[0] &= 248
    digest[31] = digest[31] & 127 | 64
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(digest, "little") % order
    forged = someone.public_key().public_bytes_raw() + scalar.to_bytes(32, "little")
    neutral = ed25519.Ed25519PublicKey.from_public_bytes((1).to_bytes(32, "little"))
    for text in (b"anything", b"anything else"):
        neutral.verify(forged, text)


def test_a_sound_ed25519_key_is_usable() -> None:
    jwk = OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate().public_key(), as_dict=True)
    assert usable_key({**jwk, "key_ops": ["verify"]}, ACCEPTED).algorithms == {"EdDSA"}
