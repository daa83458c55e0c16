"""Both planes as they answer, and what they are made of."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from quotagate.diagnosis.certificates import judge_end, shown_in
from quotagate.diagnosis.finding import Finding, Level, judged

if TYPE_CHECKING:
    from gateway.settings.observing import Management

TIMEOUT_SECONDS: Final = 5.0
KEY_SET_SECONDS_MAX: Final = 7200.0  # as the alert KeySetOld has it
KEY_SET_AGE: Final = "quotagate_key_set_age_seconds"
ANSWER_SHOWN_MAX: Final = 200  # characters


def of_plane(name: str, url: str) -> Iterator[Finding]:
    import httpx

    try:
        with httpx.Client(timeout=TIMEOUT_SECONDS) as client, client.stream("GET", f"{url}/-/ready") as response:
            secured = response.extensions["network_stream"].get_extra_info("ssl_object")
            ends = None if secured is None else shown_in(secured.getpeercert())
            status, text = response.status_code, response.read().decode(errors="replace")
    except httpx.TransportError as e:
        yield judged(False, name, f"{url} does not answer: {e}")
        return
    yield judged(status == httpx.codes.OK, name, f"{url} answers {status} {_beginning(text)}")
    if ends is not None:
        good, detail = judge_end(ends, time.time())
        yield judged(good, f"{name} certificate", f"the one that {url} shows {detail}")


def _beginning(text: str) -> str:
    return text if len(text) <= ANSWER_SHOWN_MAX else f"{text[:ANSWER_SHOWN_MAX]}…"


def of_key_set_ages(management: "Management") -> Iterator[Finding]:
    """How long ago the gateway has read its issuers' keys, by its metrics on this machine."""
    import httpx
    from prometheus_client.parser import text_string_to_metric_families

    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(management.host, management.host)  # noqa: S104 - it is replaced
    url = f"http://{f'[{host}]' if ':' in host else host}:{management.port}/metrics"
    try:
        text = httpx.get(url, timeout=TIMEOUT_SECONDS).raise_for_status().text
    except httpx.HTTPError as e:
        yield Finding(Level.NOTE, "age of key sets", f"{url} does not answer here: {e}")
        return
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == KEY_SET_AGE:
                detail = f"the one that the gateway read longest ago was read {sample.value / 60:.0f} minutes ago"
                yield judged(sample.value <= KEY_SET_SECONDS_MAX, "age of key sets", detail)


def of_installation() -> Finding:
    """As what the gateway runs that is started from here."""
    from compiled import finder

    running = finder.install()
    reason = f": {running.detail}" if running.detail else ""
    good = running.kind is not finder.Kind.UNUSABLE
    return judged(good, "installation", f"the gateway runs as {running}{reason}")
