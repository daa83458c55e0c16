"""Finds public keys whose private half can be computed, or that verify signatures of anybody. Pure.

Sources: Nemec et al., "The Return of Coppersmith's Attack" (ROCA, CVE-2017-15361); Böck, "Fermat Factorization in the
Wild" (CVE-2022-26320); RFC 7748 section 7 and RFC 8032 section 5.1 for points of small order on curve25519.
"""

from itertools import count, islice
from math import gcd, isqrt, lcm, prod
from typing import Final

RSA_BITS_MIN: Final = 2048  # RFC 7518 section 3.3
RSA_BITS_MAX: Final = 16_384  # OpenSSL verifies with no longer one
FERMAT_STEPS: Final = 100  # one was enough for every weak generator that is known

# Infineon's library made primes k * M + (65537 ^ a mod M), where M is the product of the first primes: 39 of them for
# the shortest keys, more for longer ones, so that these 39 recognize all of them.
_BASE: Final = 65537
_PRIMES: Final = tuple(islice((n for n in count(3) if all(n % d for d in range(2, isqrt(n) + 1))), 38))
_SMALL: Final = prod(n for n in range(3, 2000, 2) if all(n % d for d in range(3, isqrt(n) + 1, 2)))


def _logarithms(prime: int) -> dict[int, int]:
    """Each power of the base modulo the prime -> its exponent."""
    logarithms: dict[int, int] = {}
    power = 1
    while power not in logarithms:
        logarithms[power] = len(logarithms)
        power = power * _BASE % prime
    return logarithms


_LOGARITHMS: Final = {prime: _logarithms(prime) for prime in _PRIMES}


def has_roca_structure(modulus: int) -> bool:
    """Whether the modulus is a power of 65537 modulo the product of the first primes, as only that library makes it: of
    other moduli about one in 2^28 is one modulo each prime, and hardly any with one exponent for all of them."""
    exponent, order = 0, 1
    for prime, logarithms in _LOGARITHMS.items():
        logarithm = logarithms.get(modulus % prime)
        if logarithm is None or (logarithm - exponent) % gcd(order, len(logarithms)):
            return False
        # One exponent for the primes so far and for this one (the Chinese remainder theorem, step by step).
        while exponent % len(logarithms) != logarithm:
            exponent += order
        order = lcm(order, len(logarithms))
    return True


def _primes_are_close(modulus: int) -> bool:
    """Whether Fermat's factorization ends at once."""
    middle = isqrt(modulus - 1) + 1
    return any(isqrt(square) ** 2 == square for square in ((middle + n) ** 2 - modulus for n in range(FERMAT_STEPS)))


def weakness_of_rsa(modulus: int, exponent: int) -> str | None:
    """Why nobody should trust what the key signed; None where no weakness is known."""
    if modulus.bit_length() < RSA_BITS_MIN:
        return f"it is shorter than {RSA_BITS_MIN} bits"
    if modulus.bit_length() > RSA_BITS_MAX:
        return f"it is longer than {RSA_BITS_MAX} bits"
    if exponent < 3 or not exponent & 1:
        return "its exponent is not an odd number above 1"
    if not modulus & 1 or gcd(modulus, _SMALL) != 1:
        return "its modulus has a small factor"
    if has_roca_structure(modulus):
        return "its modulus has the structure of CVE-2017-15361 (ROCA), so that it can be factored"
    if _primes_are_close(modulus):
        return "its primes are close to each other, so that it can be factored (CVE-2022-26320)"
    return None


_P: Final = 2**255 - 19
# y of the points of order 1, 2, 4 and 8: with one of them as the key, anyone signs.
_SMALL_ORDER_Y: Final = frozenset(
    {
        1,
        _P - 1,
        0,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        _P - 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    }
)


def weakness_of_ed25519(encoded: bytes) -> str | None:
    y = (int.from_bytes(encoded, "little") & (2**255 - 1)) % _P
    return "it is a point of small order, so that anyone can sign" if y in _SMALL_ORDER_Y else None
