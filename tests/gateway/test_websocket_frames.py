"""Where a message begins in a stream of WebSocket frames, and what is no frame of a client."""

import pytest

from gateway.http.websocket import BadFrame, Frames, close_frame
from tests.gateway.tunnels import frame


def test_messages_are_found_wherever_reads_are_cut() -> None:
    sizes = (0, 125, 126, 65_535, 65_536)
    data = b"".join(
        frame(b"x" * n, fin=False, mask=b"\0\0\0\0") + frame(b"p", 9) + frame(b"", 0) + frame(b"y", 2) for n in sizes
    )
    whole = Frames(masked=True).messages(data)
    assert len(whole) == 2 * len(sizes)
    for step in (1, 2, 3, 7, 1000):
        frames, begin = Frames(masked=True), []
        for at in range(0, len(data), step):
            begin += [at + offset for offset in frames.messages(data[at : at + step])]
        assert begin == whole
        assert frames.between


@pytest.mark.parametrize("data", [frame(b"a", mask=None), frame(b"a" * 126, 9), frame(b"a", 9, fin=False)])
def test_what_is_no_frame_of_a_client_is_told(data: bytes) -> None:
    with pytest.raises(BadFrame):
        Frames(masked=True).messages(data)


def test_a_masked_close_frame_is_one_of_a_client() -> None:
    frames = Frames(masked=True)
    assert frames.messages(close_frame(1008, "no more", masked=True)) == []
    assert frames.between
