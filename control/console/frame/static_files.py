"""Styles and scripts. An address holds the hash of the content, so that a browser keeps a file until it changes."""

import gzip
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

router = APIRouter(prefix="/console/static", include_in_schema=False)

MEDIA_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
KEPT: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class StaticFile:
    content: bytes
    compressed: bytes
    media_type: str
    digest: str


def _read(name: str, content: bytes) -> StaticFile:
    digest = sha256(content).hexdigest()[:12]
    return StaticFile(content, gzip.compress(content, 9, mtime=0), MEDIA_TYPES[name.rpartition(".")[2]], digest)


FILES: Final = {
    each.name: _read(each.name, each.read_bytes())
    for each in files("control.console").joinpath("static").iterdir()
    if each.name.rpartition(".")[2] in MEDIA_TYPES
}


def static(name: str) -> str:
    """The address of a file."""
    return f"/console/static/{name}?v={FILES[name].digest}"


@router.get("/{name}")
async def read_file(name: str, request: Request) -> Response:
    """A style, a script or a picture of the pages. It holds nothing that strangers must not see."""
    file = FILES.get(name)
    if file is None:
        raise HTTPException(404)
    headers = {
        "Cache-Control": KEPT if request.query_params.get("v") == file.digest else "no-cache",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Vary": "Accept-Encoding",
    }
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.compressed, 200, headers | {"Content-Encoding": "gzip"}, file.media_type)
    return Response(file.content, 200, headers, file.media_type)
