"""What a proxy that forwards itself asks the gateway."""

TRUSTED = {"forward_auth": {"trusted": ["127.0.0.0/8"]}}


def question(
    kind: str,
    target: str = "/v1",
    fields: bytes = b"",
    *,
    method: str = "GET",
    host: str = "api.example.com",
    by: str = "GET",
) -> bytes:
    """What a proxy of this kind asks about a client's request."""
    if kind == "envoy":
        lines = f"{method} /-/authorize/envoy{target} HTTP/1.1\r\nHost: {host}\r\n"
    else:
        word, uri = ("Original", "URI") if kind == "nginx" else ("Forwarded", "Uri")
        lines = (
            f"{by} /-/authorize/{kind} HTTP/1.1\r\nHost: quotagate\r\nX-{word}-Method: {method}\r\n"
            f"X-{word}-{uri}: {target}\r\nX-{word}-Host: {host}\r\n"
        )
    return lines.encode() + fields + b"\r\n"


KINDS = ("nginx", "traefik", "caddy", "envoy")
