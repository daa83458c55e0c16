"""What the tests of the gateway work with: a gateway, its clients, its upstream and its organizations."""

from tests.gateway.rig.answer import Answer, Cut
from tests.gateway.rig.gateway import Gateway, StartGateway, StartPair, running
from tests.gateway.rig.organization import SECRET, MakeOrganization, Organization
from tests.gateway.rig.patience import PATIENCE_SECONDS, PROCESS_SECONDS, Until, until
from tests.gateway.rig.peer import STREAM_LIMIT, Client, Connect, Peer, closed_port, connected
from tests.gateway.rig.process import Process, StartProcess, is_alive
from tests.gateway.rig.requests import OK, get, post, request
from tests.gateway.rig.settings import PATIENT, merged
from tests.gateway.rig.upstream import Script, Upstream, listening

__all__ = [
    "OK",
    "PATIENCE_SECONDS",
    "PATIENT",
    "PROCESS_SECONDS",
    "SECRET",
    "STREAM_LIMIT",
    "Answer",
    "Client",
    "Connect",
    "Cut",
    "Gateway",
    "MakeOrganization",
    "Organization",
    "Peer",
    "Process",
    "Script",
    "StartGateway",
    "StartPair",
    "StartProcess",
    "Until",
    "Upstream",
    "closed_port",
    "connected",
    "get",
    "is_alive",
    "listening",
    "merged",
    "post",
    "request",
    "running",
    "until",
]
