"""Selling, as a person sees it: the printed checkout page, and the whole story by one command."""

import re
import signal
import subprocess
import time

import httpx

from tests.e2e.running import Command, Eventually, StartUp, Up


def test_who_pays_on_the_printed_page_is_served_within_five_seconds(stack: Up, eventually: Eventually) -> None:
    signed_up = stack.ready["sign_up"]
    with httpx.Client() as client:

        def answered() -> int:
            return stack.call(signed_up["token"]).status_code

        assert answered() == 402
        page = client.get(signed_up["checkout"])
        assert "Starter" in page.text
        assert client.post(signed_up["checkout"], data={"action": "pay"}).status_code == 303
        assert eventually(lambda: answered() == 200)


def test_the_whole_story_goes_as_it_is_told(stack: Up, quotagate: Command) -> None:
    story = quotagate("demo", "--data-dir", str(stack.data_dir))
    assert story.returncode == 0, story.stderr
    codes = re.findall(r"gateway  (\d+)", story.stdout)
    assert {"200", "402", "429"} == set(codes)
    assert "All 12 steps went as the story says." in story.stdout


def test_the_story_can_be_told_twice_and_leaves_the_calendar_and_other_customers_as_they_were(
    up: StartUp, eventually: Eventually
) -> None:
    running = up("twice")
    headers = {"Authorization": f"Bearer {running.ready['admin_token']}"}
    control = httpx.Client(base_url=running.ready["control"], headers=headers, timeout=30)
    stripe = httpx.Client(base_url=running.ready["stripe"], timeout=30)

    def ahead() -> float:
        return float(stripe.get("/_double/clock").json()["now"] - time.time())

    with control, stripe:
        signed_up = running.ready["sign_up"]
        assert stripe.post(signed_up["checkout"], data={"action": "pay"}).status_code == 303
        assert eventually(lambda: running.entitlement(signed_up["org"]).get("status") == "active")
        period = running.entitlement(signed_up["org"])["period"]
        (line,) = re.findall(r"^  (.* demo .*)$", running.output.read_text(), re.MULTILINE)
        for _ in range(2):
            story = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=False)
            assert story.returncode == 0, story.stdout + story.stderr
            assert abs(ahead()) < 3600, "the calendar is back"
            for state in ("waiting", "dead"):
                assert control.get(f"/api/admin/webhooks?state={state}").json()["events"] == []
        broken_off = subprocess.Popen(["bash", "-c", f"exec {line}"], stdout=subprocess.PIPE, text=True)
        assert broken_off.stdout is not None
        assert any("the calendar is at" in story for story in broken_off.stdout)
        broken_off.send_signal(signal.SIGINT)
        broken_off.communicate(timeout=60)
        assert abs(ahead()) < 3600, "the calendar is back, though the story broke off"
        since = time.strftime("%Y-%m-01T00:00:00Z", time.gmtime())
        replayed = control.post("/api/admin/webhooks/replay", json={"since": since})
        assert replayed.json()["replayed"] > 50
        assert eventually(lambda: control.get("/api/admin/webhooks?state=waiting").json()["events"] == [])
        assert control.get("/api/admin/webhooks?state=dead").json()["events"] == []
        assert running.entitlement(signed_up["org"])["period"] == period
        invoices = control.get(f"/v1/organizations/{signed_up['org']}/invoices").json()["invoices"]
        assert len(invoices) == 1, "no month passed for who is no part of the story"
        kinds = {each["kind"] for each in control.get("/v1/incidents?status=open").json()["incidents"]}
        assert not kinds & {"overage_refused", "stripe_event_dead"}
