"""Examples of the files around the rules: Prometheus' own, and Alertmanager's. Pure."""

from typing import Any

from quotagate.observability.watched import Watched


def prometheus_of(watched: Watched) -> dict[str, Any]:
    """The addresses are those of `quotagate gateway --management-port 9464` and of a control plane on one machine."""
    control = {
        "job_name": watched.jobs.control,
        "metrics_path": "/-/metrics",
        "authorization": {"type": "Bearer", "credentials_file": "/etc/prometheus/quotagate-metrics-token"},
        "static_configs": [{"targets": ["127.0.0.1:8081"]}],
    }
    gateway = {"job_name": watched.jobs.gateway, "static_configs": [{"targets": ["127.0.0.1:9464"]}]}
    return {
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": ["rules.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": ["127.0.0.1:9093"]}]}]},
        "scrape_configs": [gateway, control],
    }


def alertmanager_of() -> dict[str, Any]:
    """A page goes to who is on call, a ticket waits for the morning. While a plane or a store is away, tickets are
    silent."""
    return {
        "route": {
            "receiver": "tickets",
            "group_by": ["alertname", "slo"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "12h",
            "routes": [{"matchers": ['severity="page"'], "receiver": "on-call", "repeat_interval": "1h"}],
        },
        "inhibit_rules": [
            {
                "source_matchers": ['alertname=~"GatewayRedisLinkDown|StoreAway|ControlPlaneDown"'],
                "target_matchers": ['severity="ticket"'],
            },
            {
                "source_matchers": ['alertname="ErrorBudgetBurns"', 'severity="page"'],
                "target_matchers": ['alertname="ErrorBudgetBurns"', 'severity="ticket"'],
                "equal": ["slo"],
            },
        ],
        "receivers": [
            {"name": "on-call", "webhook_configs": [{"url": "https://on-call.example.com/quotagate"}]},
            {"name": "tickets", "webhook_configs": [{"url": "https://tickets.example.com/quotagate"}]},
        ],
    }
