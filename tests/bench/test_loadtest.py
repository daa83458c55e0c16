"""What a load test sends, how many users it has when, and what it says afterwards."""

from pathlib import Path

import pytest

from bench.loadtest.__main__ import main, parsed
from bench.loadtest.callers import Caller, Callers, CallersUnreadable, Paths, from_tokens, read_ready, zipf_shares
from bench.loadtest.curves import CURVES, users_at
from bench.loadtest.heads import TEMPLATES, fields
from bench.loadtest.summary import Exactness, Generator, Line, Summary

ALL = Line("all", 100, 0, 10.0, 1, 2, 3, 4)
QUIET = Generator(processes=1, cpu_percent=40.0, idle=0.5)


def summary(total: Line = ALL, generator: Generator = QUIET, exactness: Exactness | None = None) -> Summary:
    return Summary(10.0, 5, "day", total, [], {}, generator, exactness)


def test_few_organizations_send_most_of_the_requests() -> None:
    shares = zipf_shares(100)
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    assert sum(shares[:20]) > 0.6
    assert shares[-1] > 0.001


def test_callers_are_read_as_they_were_written_and_by_their_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "callers.json"
    some = (Caller("a", "token"), Caller("b", "key"))
    callers = Callers("http://gateway", some, some[:1], 50, some[1], "bulk", "http://control", "admin", paths=Paths())
    callers.write(file)
    assert Callers.read(file) == callers
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_of_tokens_has_one_a_line_with_or_without_a_name(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# ours\n\nacme  eyJ.a.b\nqg_live_x\n")
    callers = from_tokens(file, "https://gateway.example.com/", Paths())
    assert callers.ordinary == (Caller("acme", "eyJ.a.b"), Caller("caller-4", "qg_live_x"))
    assert callers.gateway == "https://gateway.example.com"
    assert callers.control is None


@pytest.mark.parametrize(
    ("content", "host", "said"),
    [
        ("a b c\n", "http://g", "tokens:1: a line is a token"),
        ("acme tökén\n", "http://g", "tokens:1: a line is a token"),
        ("# nothing\n", "http://g", "has neither a token nor an API key"),
        ("token\n", "gateway:8080", "'gateway:8080' is no http:// or https:// address"),
    ],
)
def test_a_file_of_tokens_that_is_none_is_named_with_its_line(
    tmp_path: Path, content: str, host: str, said: str
) -> None:
    file = tmp_path / "tokens"
    file.write_text(content)
    with pytest.raises(CallersUnreadable) as refused:
        from_tokens(file, host, Paths())
    assert said in str(refused.value)


def test_a_file_that_is_no_ready_json_is_said_to_be_none(tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    with pytest.raises(CallersUnreadable, match="cannot be read"):
        read_ready(file)
    file.write_text('{"gateway": "http://g"}')
    with pytest.raises(CallersUnreadable, match="it has no control"):
        read_ready(file)


@pytest.mark.parametrize("name", CURVES)
def test_a_shape_has_at_least_one_user_never_more_than_asked_for_and_an_end(name: str) -> None:
    users = [users_at(CURVES[name], at / 1000, 200) for at in range(1000)]
    counts = [count for count in users if count is not None]
    assert len(counts) == 1000
    assert min(counts) >= 1
    assert 195 <= max(counts) <= 200
    assert users_at(CURVES[name], 1.0, 200) is None


def test_each_client_sends_its_own_fields_and_no_trace_twice() -> None:
    sent = [fields("token", client) for client in range(len(TEMPLATES))]
    agents = {each["User-Agent"].split("/")[0] for each in sent}
    assert len(agents) == len(TEMPLATES)
    assert all(each["Authorization"] == "Bearer token" for each in sent)
    traces = [each.get("traceparent") or each["Traceparent"] for each in sent for _ in range(2)]
    assert len({fields("token", 0)["traceparent"] for _ in range(100)}) == 100
    assert all("%" not in trace for trace in traces)


def test_the_output_says_when_locust_itself_was_the_limit() -> None:
    busy = Generator(processes=1, cpu_percent=97.0, idle=0.4)
    assert "LOCUST WAS THE LIMIT" in summary(generator=busy).text()
    assert "--processes 2" in summary(generator=busy).text()
    assert "THE MACHINE WAS THE LIMIT" in summary(generator=Generator(1, 40.0, 0.01)).text()
    assert "was not the limit" in summary().text()


@pytest.mark.parametrize(
    ("total", "over", "good"),
    [
        (ALL, 0, True),
        (Line("all", 100, 1, 10.0, 1, 2, 3, 4), 0, False),
        (ALL, 1, False),
        (Line("all", 0, 0, 0, 0, 0, 0, 0), 0, False),
    ],
)
def test_a_load_test_is_good_when_no_call_failed_and_nothing_was_over_admitted(
    total: Line, over: int, good: bool
) -> None:
    result = summary(total, exactness=Exactness(20, 50, 1000, over, witnessed=True))
    assert result.good is good
    assert f"Over-admitted {over}: 20 organizations with 50 units each" in result.text()
    assert result.record()["good"] is good


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "http://127.0.0.1:1"], "--host needs --tokens FILE"),
        (["--tokens", "file"], "--tokens needs --host URL"),
        (["--prepare", "file"], "--prepare needs --ready FILE"),
        (["--shape", "sawtooth"], "invalid choice: 'sawtooth'"),
        (["--users", "0"], "are above 0"),
    ],
)
def test_options_that_make_no_load_test_are_refused_with_the_reason(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QUOTAGATE_READY", raising=False)
    with pytest.raises(SystemExit) as ended:
        parsed(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_stack_that_is_not_there_is_an_error_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--ready", "/nowhere/ready.json"]) == 2
    assert capsys.readouterr().err.startswith("/nowhere/ready.json cannot be read")
