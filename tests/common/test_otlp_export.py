"""What is handed over goes to a collector, which may be slow, away or unwilling: nobody waits for it, and what it does
not get is counted."""

import gzip
import time
from collections.abc import Callable, Iterator

import pytest

from common.otlp import export as exporting
from common.otlp.counts import dropped
from common.otlp.export import Export
from common.otlp.records import LogLine, encode_line
from common.otlp.settings import Collector as Settings
from common.settings_file import SettingsError
from devstack.ports import free_port
from tests.authority import Authority
from tests.otlp_receiver import Collector, collecting

WAIT_SECONDS = 60.0
LINE = LogLine(1, {"event": "a line"})


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as each:
        yield each


@pytest.fixture(autouse=True)
def linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "LINGER_SECONDS", 0.0)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def logs_to(settings: Settings, pending_max: int = 100) -> Export[LogLine]:
    return Export(settings, "logs", "quotagate-test", lambda line: (encode_line(line),), pending_max)


def of(url: str, **changes: object) -> Settings:
    return Settings.model_validate({"endpoint": url, **changes})


def test_a_signal_may_go_elsewhere_with_headers_of_its_own(collector: Collector) -> None:
    special = {"endpoint": f"{collector.url}/apart/logs", "headers": {"X-Dataset": "logs"}}
    headers = {"x-dataset": "all", "authorization": "Bearer key"}
    export = logs_to(of("http://127.0.0.1:1", headers=headers, signals={"logs": special}))
    export.put((LINE,))
    export.close()
    assert collector.paths == ["/apart/logs"]
    [sent] = collector.headers
    assert (sent["x-dataset"], sent["authorization"]) == ("logs", "Bearer key")
    assert sent["content-type"] == "application/x-protobuf"
    assert [line.message for line in collector.lines] == ["a line"]


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_the_environment_says_how_a_body_is_compressed_and_adds_headers(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "x-a=b%20c,x-key=from the environment")
    export = logs_to(of(collector.url, headers={"X-Key": "from the file"}))
    export.put((LINE,) * 50)
    export.close()
    [sent] = collector.headers
    assert (sent["content-encoding"], sent["x-a"], sent["x-key"]) == (compression, "b c", "from the file")
    assert int(sent["content-length"]) < len(gzip.compress(encode_line(LINE) * 50)) + 200
    assert len(collector.lines) == 50


def test_a_collector_with_a_certificate_of_ones_own_is_believed_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    with collecting(authority.issue("127.0.0.1")) as collector:
        strange = logs_to(of(collector.url))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(authority.ca_file))
        known = logs_to(of(collector.url))
        for export in (strange, known):
            export.put((LINE,))
            export.close()
        assert (strange.dropped, known.dropped, len(collector.lines)) == (1, 0, 1)


def test_a_file_of_certificates_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem")
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_CERTIFICATE"):
        logs_to(of("https://127.0.0.1:1"))


def test_a_collector_that_is_busy_is_asked_again_and_one_that_refuses_is_not(collector: Collector) -> None:
    collector.statuses = [503, 429]
    export = logs_to(of(collector.url))
    export.put((LINE,))
    until(lambda: len(collector.lines) == 1)
    assert (len(collector.paths), export.dropped) == (3, 0)
    collector.status = 400
    export.put((LINE, LINE))
    until(lambda: export.dropped == 2)
    assert len(collector.paths) == 4
    collector.status = 200
    export.put((LINE,))
    until(lambda: len(collector.lines) == 2)
    export.close()


def test_while_a_collector_hangs_nobody_waits_and_what_is_too_much_is_counted(collector: Collector) -> None:
    before = dropped().get("logs", 0)
    collector.answers.clear()
    export = logs_to(of(collector.url), pending_max=10)
    began = time.monotonic()
    for _ in range(1000):
        export.put((LINE,))
    assert time.monotonic() - began < 1, "a thousand take a few milliseconds"
    assert export.dropped == 990
    assert dropped()["logs"] - before == 990
    collector.answers.set()
    until(lambda: len(collector.lines) == 10)
    export.put((LINE,))
    until(lambda: len(collector.lines) == 11)
    export.close()
    assert export.dropped == 990


def test_a_process_ends_though_its_collector_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "CLOSE_SECONDS", 30.0)
    export = logs_to(of(f"http://127.0.0.1:{free_port()}"))
    export.put((LINE,))
    began = time.monotonic()
    export.close()
    assert time.monotonic() - began < 10, "nothing is tried again once the process ends"
    assert export.dropped == 1


def test_what_cannot_be_written_is_dropped_and_the_next_is_sent(collector: Collector) -> None:
    def encode(fact: int) -> tuple[bytes]:
        return (encode_line(LogLine(fact, {"event": str(1 // fact)})),)

    export = Export(of(collector.url), "logs", "quotagate-test", encode)
    export.put((0,))
    until(lambda: export.dropped == 1)
    export.put((1,))
    export.close()
    assert [line.message for line in collector.lines] == ["1"]


def test_metrics_or_logs_without_a_collector_are_refused() -> None:
    for wanted in ("metrics", "logs"):
        with pytest.raises(ValueError, match="needs a collector: set endpoint"):
            Settings.model_validate({wanted: True})
