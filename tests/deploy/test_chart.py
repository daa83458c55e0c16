"""The Helm chart: as Helm renders it, as Kubernetes' schemas read it, and as Quotagate reads what is in it."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from quotagate.observability.catalogue import BY_NAME
from tests.authority import Authority
from tests.deploy import naming, tools

pytestmark = tools.needed
VERSIONS = ("1.30.0", "1.37.0")  # the oldest that Chart.yaml takes, and the newest that is known here
COMPONENT = "app.kubernetes.io/component"
EVERYTHING: dict[str, Any] = {
    "imagePullSecrets": [{"name": "registry"}],
    "gateway": {
        "tls": {"secret": "gateway-tls"},
        "journal": {"enabled": True, "storageClass": "local"},
        "settings": {"degraded": {"journal": "/var/lib/quotagate/journal"}},
        "service": {"type": "LoadBalancer", "annotations": {"example.com/a": "b"}},
        "ingress": {"enabled": True, "host": "api.example.com", "className": "nginx", "tlsSecret": "api"},
        "autoscaling": {"inFlight": 200},
        "nodeSelector": {"role": "edge"},
        "tolerations": [{"key": "edge", "operator": "Exists"}],
    },
    "control": {
        "ingress": {"enabled": True, "host": "console.example.com"},
        "settings": {"expose": {"metrics_token": "${QUOTAGATE_METRICS_TOKEN}"}},
        "affinity": {"podAntiAffinity": {}},
    },
    "networkPolicy": {
        "gatewayFrom": [{"namespaceSelector": {}}],
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
        "gatewayEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
        "controlEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
}
SOME: dict[str, dict[str, Any]] = {
    "as it is": {},
    "with everything": EVERYTHING,
    "gateways alone": {
        "control": {"enabled": False},
        "gateway": {"autoscaling": {"enabled": False}},
        "networkPolicy": {"enabled": False},
        "serviceAccount": {"create": False, "name": "mine"},
    },
}


@pytest.fixture(scope="module")
def charts() -> dict[str, dict[str, Any]]:
    return {name: tools.rendered(values, *VERSIONS) for name, values in SOME.items()}


@pytest.fixture(params=list(SOME))
def chart(charts: dict[str, dict[str, Any]], request: pytest.FixtureRequest) -> dict[str, Any]:
    return charts[request.param]


def of_kind(chart: dict[str, Any], *kinds: str) -> list[dict[str, Any]]:
    return [each for each in chart["manifests"] if each["kind"] in kinds]


def pods(chart: dict[str, Any]) -> list[dict[str, Any]]:
    return [each["spec"]["template"] for each in of_kind(chart, "Deployment", "StatefulSet", "Job")]


def containers(chart: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for pod in pods(chart):
        yield from pod["spec"]["containers"]


def settings(chart: dict[str, Any]) -> dict[str, str]:
    return {name: text for each in of_kind(chart, "ConfigMap") for name, text in each["data"].items()}


def test_helm_finds_no_fault_and_each_manifest_is_what_kubernetes_takes(chart: dict[str, Any]) -> None:
    assert chart.get("refused") is None
    assert [each for each in chart["lint"]["messages"] if each["severity"] > 1] == []  # 1: an icon is missing
    assert chart["faults"] == []
    kinds = {each["kind"] for each in chart["manifests"]}
    assert {"ConfigMap", "Service", "PodDisruptionBudget"} <= kinds


def test_the_settings_in_it_are_read_by_the_release_that_they_are_for(
    chart: dict[str, Any], authority: Authority
) -> None:
    certificate = str(authority.issue("api.example.com"))
    here = {"/etc/quotagate-tls/tls.crt": certificate, "/etc/quotagate-tls/tls.key": certificate}
    for name, text in settings(chart).items():
        in_here = text
        for file, place in here.items():
            in_here = in_here.replace(file, place)
        assert list(naming.setting_faults(name, in_here)) == []


def test_each_command_and_variable_exists_and_gateways_have_what_their_settings_name(chart: dict[str, Any]) -> None:
    for container in containers(chart):
        assert list(naming.command_faults(container["args"])) == []
        names = {each["name"] for each in container.get("env", [])}
        assert names <= naming.variables()
        if container["name"] == "gateway":
            assert naming.references(settings(chart)["gateway.yaml"]) <= names
    assert naming.references("".join(settings(chart).values())) <= naming.variables()


def test_what_selects_pods_finds_some_and_the_ports_that_it_names(chart: dict[str, Any]) -> None:
    selectors = [each["spec"]["selector"]["matchLabels"] for each in of_kind(chart, "PodDisruptionBudget")]
    selectors += [each["spec"]["podSelector"]["matchLabels"] for each in of_kind(chart, "NetworkPolicy")]
    selectors += [each["spec"]["selector"] for each in of_kind(chart, "Service")]
    for selector in selectors:
        assert any(selector.items() <= pod["metadata"]["labels"].items() for pod in pods(chart)), selector
    for service in of_kind(chart, "Service"):
        pod = next(p for p in pods(chart) if service["spec"]["selector"].items() <= p["metadata"]["labels"].items())
        ports = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for monitor in of_kind(chart, "ServiceMonitor"):
        labels = monitor["spec"]["selector"]["matchLabels"]
        watched = [each for each in of_kind(chart, "Service") if labels.items() <= each["metadata"]["labels"].items()]
        assert len(watched) == 1
        assert {each["port"] for each in monitor["spec"]["endpoints"]} <= {
            port["name"] for port in watched[0]["spec"]["ports"]
        }
    for scaler in of_kind(chart, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert target["name"] in {each["metadata"]["name"] for each in of_kind(chart, target["kind"])}
        named = [each["pods"]["metric"]["name"] for each in scaler["spec"]["metrics"] if each["type"] == "Pods"]
        assert set(named) <= set(BY_NAME)


def test_no_pod_has_rights_and_none_is_cut_before_its_drain_is_over(chart: dict[str, Any]) -> None:
    for pod in pods(chart):
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert pod["spec"]["automountServiceAccountToken"] is False
        for container in pod["spec"]["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"]
            assert not security["allowPrivilegeEscalation"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
    gateway = next(each for each in pods(chart) if each["spec"]["containers"][0]["name"] == "gateway")["spec"]
    pause = gateway["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    stop = yaml.safe_load(settings(chart)["gateway.yaml"])["drain"]["stop_seconds"]
    assert gateway["terminationGracePeriodSeconds"] > stop + pause


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"gatewai": {}}, "gatewai"),
        ({"gateway": {"settings": {"drain": {"stop_seconds": 5}}}}, "drain"),
        ({"gateway": {"ingress": {"enabled": True}}}, "host"),
        ({"gateway": {"autoscaling": {"cpuPercent": None}}}, "needs cpuPercent or inFlight"),
    ],
)
def test_values_that_would_be_left_out_or_contradict_the_chart_are_refused(values: dict[str, Any], reason: str) -> None:
    assert reason in tools.rendered(values)["refused"]


def test_other_settings_are_other_pods_so_that_a_rollout_stops_at_the_first_that_is_not_ready() -> None:
    before, after = (
        next(each for each in pods(tools.rendered(values)) if each["metadata"]["labels"][COMPONENT] == "gateway")
        for values in ({}, {"gateway": {"settings": {"hydrate_timeout_ms": 1000}}})
    )
    assert before["metadata"]["annotations"] != after["metadata"]["annotations"]
