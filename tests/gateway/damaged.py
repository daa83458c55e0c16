"""Messages of fields that mean something, damaged here and there, and reads that leave their heads to the parser."""

from collections.abc import Sequence

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.gateway.test_fuzz import FRAGMENTS

THOROUGH = settings(
    max_examples=1000,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
BLANKS = (b": ", b": ", b": ", b":", b":  ")


def messages(
    whole: Sequence[bytes],
    first_lines: Sequence[bytes],
    names: Sequence[bytes],
    values: Sequence[bytes],
    usual: tuple[bytes, bytes],
    behind: Sequence[bytes],
) -> st.SearchStrategy[bytes]:
    """One of the `whole` ones, or one that is made of the rest: most have the `usual` field; `behind`: what may follow
    the head."""

    @st.composite
    def message(draw: st.DrawFn) -> bytes:
        if draw(st.integers(0, 4)) == 0:
            data = bytearray(draw(st.sampled_from(whole)))
        else:
            fields = draw(st.lists(st.tuples(st.sampled_from(names), st.sampled_from(values)), max_size=5))
            if draw(st.integers(0, 5)):
                fields.insert(draw(st.integers(0, len(fields))), usual)
            lines = [b"%b%b%b\r\n" % (name, draw(st.sampled_from(BLANKS)), value) for name, value in fields]
            data = bytearray(b"%b\r\n%b\r\n" % (draw(st.sampled_from(first_lines)), b"".join(lines)))
            data += draw(st.sampled_from(behind))
        for _ in range(draw(st.integers(0, 1))):
            at = draw(st.integers(0, len(data)))
            data[at : at + draw(st.integers(0, 4))] = draw(st.sampled_from(FRAGMENTS) | st.binary(max_size=3))
        return bytes(data)

    return message()


def parsed(data: bytes) -> list[bytes]:
    """Reads of it that leave its head to the parser, since it comes in two of them."""
    cut = data.find(b"\r\n\r\n") + 3
    return [data[:cut], data[cut:]] if cut > 2 else [data]
