"""What the image and the units name exists. tests/test_names.py looks at all documents and manifests as texts."""

import re

from tests.deploy import naming, tools
from tests.deploy.dockerfile import Ignored, stages


def test_each_command_of_a_unit_exists_and_the_walk_through_shows_the_same_units() -> None:
    document = (tools.ROOT / "docs/production.md").read_text()
    for unit in (tools.DEPLOY / "systemd").glob("*.service"):
        text = unit.read_text()
        words = next(line for line in text.splitlines() if line.startswith("ExecStart=")).split()
        assert words[0] == "ExecStart=/opt/quotagate/bin/quotagate"
        assert list(naming.command_faults(words[1:])) == []
        if f"`/etc/systemd/system/{unit.name}`" in document:
            assert text in document


def test_the_image_has_what_it_copies_and_commands_that_exist() -> None:
    ignored = Ignored(tools.ROOT / ".dockerignore")
    build, image = stages(tools.ROOT / "Dockerfile")
    copied = [word for each in build.instructions if each.name == "COPY" for word in each.text.split()[:-1]]
    assert [word for word in copied if ignored(word) or not (tools.ROOT / word).exists()] == []
    check = image.last("HEALTHCHECK").text.partition(" CMD ")[2]
    assert list(naming.command_faults(re.findall(r'"([^"]+)"', check)[1:])) == []
    packages = {
        "common",
        "compiled",
        "config",
        "control",
        "devstack",
        "gateway",
        "identity",
        "lua",
        "quota",
        "quotagate",
    }
    assert packages <= set(copied)


def test_a_name_that_does_not_exist_is_found() -> None:
    assert list(naming.command_faults(["gatewai"])) == ["no command is called gatewai"]
    assert list(naming.command_faults(["gateway", "--confg", "x"])) == ["gateway has no option --confg"]
    assert "QUOTAGATE_REDIS_ULR" not in naming.variables()
    faults = list(naming.setting_faults("gateway.yaml", "redis: {ulr: 'redis://a'}\nupstreams: {}\nroutes: []\n"))
    assert "redis.ulr" in faults[0]
