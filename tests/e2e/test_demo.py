"""Selling, as a person sees it: the printed checkout page, and the whole story by one command."""

import re
import subprocess
from collections.abc import Callable
from typing import Any

import httpx


def test_who_pays_on_the_printed_page_is_served_within_five_seconds(
    stack: Any, eventually: Callable[[Callable[[], bool]], bool]
) -> None:
    signed_up = stack.ready["sign_up"]
    with httpx.Client(headers={"Authorization": f"Bearer {signed_up['token']}"}) as client:

        def answered() -> int:
            return client.get(f"{stack.ready['gateway']}/anything").status_code

        assert answered() == 402
        page = client.get(signed_up["checkout"])
        assert "Starter" in page.text
        assert client.post(signed_up["checkout"], data={"action": "pay"}).status_code == 303
        assert eventually(lambda: answered() == 200)


def test_the_whole_story_goes_as_it_is_told(
    stack: Any, quotagate: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    told = quotagate("demo", "--data-dir", str(stack.data_dir))
    assert told.returncode == 0, told.stderr
    codes = re.findall(r"gateway  (\d+)", told.stdout)
    assert {"200", "402", "429"} == set(codes)
    assert "All 12 steps went as the story says." in told.stdout
