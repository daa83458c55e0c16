"""What is watched: the shape of `config/observability.yaml`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from common.settings_file import SettingsConflict, SettingsModel

Text = Annotated[str, Field(min_length=1)]
Duration = Annotated[str, Field(pattern=r"^[1-9][0-9]*[smhdw]$")]
Share = Annotated[float, Field(gt=0, lt=1)]
Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
AlertName = Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$")]
Severity = Literal["page", "ticket"]


class Jobs(SettingsModel):
    """The names of Prometheus' scrape jobs."""

    gateway: Text = "quotagate-gateway"
    control: Text = "quotagate-control"


class Objective(SettingsModel):
    """One promise: so large a share of events is good."""

    about: Text
    objective: Annotated[float, Field(gt=0, le=1)]
    """The share of events that are good, as `make slo` measures it."""
    watched: Share | None = None
    """The share that burn rates are of; null: `objective`. Of a share of 1 nobody can burn a part."""
    bound_seconds: Annotated[float, Field(gt=0)] | None = None
    """A good event takes no longer. null: `bad` says which are not good."""
    held_seconds: Annotated[float, Field(gt=0)] | None = None
    """Tighter than what is promised, and held beside it by `make slo`."""
    measured: bool = True
    """False: only production says it."""
    metric: Text
    labels: dict[Word, Text] = Field(default_factory=dict)
    """Which events of the metric are meant; without any, all."""
    bad: dict[Word, Text] | None = None
    """Of a counter: the events that are not good, by the values of a label, with | between them."""

    @property
    def share(self) -> float:
        return self.objective if self.watched is None else self.watched

    @model_validator(mode="after")
    def _says_what_is_good(self) -> Self:
        if (self.bound_seconds is None) == (self.bad is None):
            raise SettingsConflict([(("bound_seconds",), "is needed, or `bad` in its place")])
        if self.share >= 1:
            raise SettingsConflict([(("watched",), "is needed where the objective is 1")])
        return self


class BurnRate(SettingsModel):
    """An alert while the error budget burns so fast, over a long window and still over a short one."""

    severity: Severity
    factor: Annotated[float, Field(gt=0)]
    """1 uses up the budget exactly within the time that the objective is for."""
    long: Duration
    short: Duration


class Alert(SettingsModel):
    expr: Text
    """PromQL."""
    for_: Annotated[Duration | None, Field(alias="for")] = None
    severity: Severity
    summary: Text


class Panel(SettingsModel):
    title: Text
    unit: Literal["none", "s", "reqps", "percentunit", "bytes"]
    """As Grafana calls it."""
    expr: Text
    legend: Text


class Dashboard(SettingsModel):
    title: Text
    rows: Annotated[dict[Text, tuple[Panel, ...]], Field(min_length=1)]


class Watched(SettingsModel):
    """All of it."""

    runbook_url: Annotated[str, Field(pattern=r"^https?://[!-~]+$")]
    """Where docs/runbook.md is read; each alert links its section."""
    jobs: Jobs = Jobs()
    slos: Annotated[dict[Word, Objective], Field(min_length=1)]
    burn_rates: Annotated[tuple[BurnRate, ...], Field(min_length=1)]
    alerts: dict[AlertName, Alert]
    dashboards: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")], Dashboard]
