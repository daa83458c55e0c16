"""The gateway of the embedded stack has the packaged settings, and one issuer more."""

from importlib import resources

from common.settings_file import parse
from devstack.gateway_settings import with_issuer
from gateway.settings.root import GatewaySettings

CONTROL = "http://127.0.0.1:8081"
ENVIRON = {"QUOTAGATE_JWT_SECRET": "a secret of the tests, 32 bytes and more"}


def packaged() -> str:
    return resources.files("config").joinpath("gateway.yaml").read_text(encoding="utf-8")


def test_the_control_plane_is_one_issuer_more_and_nothing_else_changes() -> None:
    before = parse("packaged", packaged(), GatewaySettings, ENVIRON)
    after = parse("made", with_issuer(packaged(), CONTROL), GatewaySettings, ENVIRON)
    [own] = before.auth.trusted
    assert after.auth.trusted[0] == own
    assert [(each.issuer, each.discovery) for each in after.auth.trusted[1:]] == [(CONTROL, True)]
    assert after.model_copy(update={"auth": before.auth}) == before
    assert after.auth.keys == before.auth.keys


def test_comments_of_other_settings_stay_for_whoever_reads_them() -> None:
    made, comments = with_issuer(packaged(), CONTROL), [line for line in packaged().splitlines() if "#" in line]
    kept = [line for line in comments if line in made]
    assert len(kept) > len(comments) / 2
