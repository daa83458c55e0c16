"""A vendor's page with `<quotagate-usage>` in it, and the one endpoint that the element needs.

    export QUOTAGATE_CONTROL_URL=http://127.0.0.1:8081
    export QUOTAGATE_TOKEN=...    # of `quotagate service-tokens create`, with usage:read alone
    python examples/embed/server.py --org acme --port 8090

The vendor's server knows who is signed in, and so which organization it is: the browser is never asked. It passes on
the organization's forecast, so no token of Quotagate is in a browser, and no origin has to be allowed there.
"""

import argparse
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

FOLDER = Path(__file__).parent
TIMEOUT_SECONDS = 10


class Page(BaseHTTPRequestHandler):
    control = ""
    token = ""
    org = ""

    def do_GET(self) -> None:
        if self.path == "/":
            page = (FOLDER / "index.html").read_text().replace("CONTROL", self.control)
            self.answer(200, "text/html; charset=utf-8", page.encode())
        elif self.path == "/page.css":
            self.answer(200, "text/css", (FOLDER / "page.css").read_bytes())
        elif self.path == "/api/usage":
            self.answer(*self.usage())
        else:
            self.answer(404, "text/plain", b"Nothing is here.\n")

    def usage(self) -> tuple[int, str, bytes]:
        """Of the organization of whoever is signed in; in this example it is always the same."""
        asked = Request(  # noqa: S310  the address is of the settings
            f"{self.control}/v1/organizations/{self.org}/forecast", headers={"Authorization": f"Bearer {self.token}"}
        )
        try:
            with urlopen(asked, timeout=TIMEOUT_SECONDS) as found:  # noqa: S310
                return 200, "application/json", found.read()
        except HTTPError as e:
            return 502, "application/json", json.dumps({"status": e.code}).encode()
        except (URLError, TimeoutError):
            return 503, "application/json", b"{}"

    def answer(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        # As strict as it gets: the element needs no exception.
        policy = f"default-src 'none'; script-src {self.control}; style-src 'self'; connect-src 'self'; img-src data:"
        self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--org", required=True)
    options.add_argument("--port", type=int, default=8090)
    asked = options.parse_args()
    Page.control, Page.token = os.environ["QUOTAGATE_CONTROL_URL"].rstrip("/"), os.environ["QUOTAGATE_TOKEN"]
    Page.org = asked.org
    with ThreadingHTTPServer(("127.0.0.1", asked.port), Page) as server:
        sys.stdout.write(f"http://127.0.0.1:{server.server_port}/\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
