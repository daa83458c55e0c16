import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.access.activation import codes
from control.access.activation.codes import ALPHABET, CodeMistyped


def test_a_code_is_read_as_it_was_made_however_people_write_it() -> None:
    code = codes.generate()
    assert len(code) == 29
    plain = code.replace("-", "")
    for written in (code, code.lower(), plain, f"  {code} ", code.replace("-", " "), code.replace("-", "\u2013")):
        assert codes.read(written) == plain
    assert codes.read(code.replace("0", "O").replace("1", "l")) == plain
    assert codes.handle(plain) == code[:5]


def test_two_codes_are_never_the_same() -> None:
    assert len({codes.digest(codes.read(codes.generate())) for _ in range(1000)}) == 1000


@given(position=st.integers(0, 24), other=st.sampled_from(ALPHABET))
def test_one_wrong_character_is_found(position: int, other: str) -> None:
    plain = codes.read(codes.generate())
    if other == plain[position]:
        return
    with pytest.raises(CodeMistyped):
        codes.read(plain[:position] + other + plain[position + 1 :])


@given(position=st.integers(0, 23))
def test_neighbours_that_were_exchanged_are_found(position: int) -> None:
    plain = codes.read(codes.generate())
    one, two = plain[position], plain[position + 1]
    if one == two or {one, two} == {"0", "Z"}:
        return
    with pytest.raises(CodeMistyped):
        codes.read(plain[:position] + two + one + plain[position + 2 :])


@given(st.text(max_size=60))
def test_what_is_no_code_is_refused_without_a_fault(text: str) -> None:
    try:
        plain = codes.read(text)
    except CodeMistyped:
        return
    assert len(plain) == 25
