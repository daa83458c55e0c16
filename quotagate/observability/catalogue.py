"""The metrics of both planes."""

from collections.abc import Mapping
from typing import Final

from common.exposition import Family
from control.metrics import families as control
from gateway.process import metrics_of_machine as gateway

PLANES: Final[Mapping[str, tuple[Family, ...]]] = {"gateway": gateway.FAMILIES, "control": control.FAMILIES}
BY_NAME: Final[Mapping[str, Family]] = {family.name: family for plane in PLANES.values() for family in plane}
BY_SAMPLE: Final[Mapping[str, Family]] = {sample: family for family in BY_NAME.values() for sample in family.samples}
