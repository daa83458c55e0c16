"""The provider's HTTP face."""

import re
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus, urlencode

from jinja2 import Environment, FileSystemLoader, select_autoescape
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from devstack.oidc.directory import Client, Directory
from devstack.oidc.provider import ALGORITHM, SCOPES, Authorization, Provider, RequestRefused

SEE_OTHER = 303
COOKIE = "provider-session"
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=select_autoescape(), trim_blocks=True
)


def build(issuer: str, file: Path, clock: Callable[[], float] = time.time) -> Starlette:
    face = _Face(Provider(issuer, clock), file)
    return Starlette(
        routes=[
            Route("/.well-known/openid-configuration", face.discovery),
            Route("/authorize", face.authorize, methods=["GET", "POST"]),
            Route("/token", face.token, methods=["POST"]),
            Route("/keys", face.keys),
            Route("/userinfo", face.user_info, methods=["GET", "POST"]),
            Route("/end-session", face.end_session, methods=["GET", "POST"]),
            Route("/_double/rotate", face.rotate, methods=["POST"]),
        ]
    )


class _Face:
    def __init__(self, provider: Provider, file: Path) -> None:
        self._provider = provider
        self._file = file

    async def discovery(self, request: Request) -> Response:
        issuer = self._provider.issuer
        return JSONResponse(
            {
                "issuer": issuer,
                "authorization_endpoint": f"{issuer}/authorize",
                "token_endpoint": f"{issuer}/token",
                "jwks_uri": f"{issuer}/keys",
                "userinfo_endpoint": f"{issuer}/userinfo",
                "end_session_endpoint": f"{issuer}/end-session",
                "scopes_supported": ["openid", *SCOPES],
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [ALGORITHM],
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
            }
        )

    async def authorize(self, request: Request) -> Response:
        directory = Directory.read(self._file)
        query = request.query_params
        client = directory.clients.get(query.get("client_id", ""))
        redirect_uri = query.get("redirect_uri", "")
        if client is None or redirect_uri not in client.redirect_uris:
            # To an address that nobody has registered nothing is sent, errors included.
            return _page(
                "refused.html", 400, reason="The client is unknown, or the address to return to is not its own."
            )
        try:
            authorization = _authorization(query, client, redirect_uri)
        except RequestRefused as e:
            return self._return(redirect_uri, query.get("state", ""), error=e.error, error_description=str(e))
        if request.method == "POST":
            form = await request.form()
            if form.get("action") == "cancel":
                return self._return(redirect_uri, authorization.state, error="access_denied")
            person = directory.authenticated(str(form.get("username", "")), str(form.get("password", "")))
            if person is None:
                return _page("login.html", 401, client=client, error="Wrong user name or password.")
            cookie = self._provider.sign_in(person)
        else:
            cookie = request.cookies.get(COOKIE, "")
        session = self._provider.signed_in(cookie)
        person = directory.people.get(session[0]) if session is not None else None
        if session is None or person is None or (authorization.prompt == "login" and request.method == "GET"):
            if authorization.prompt == "none":
                return self._return(redirect_uri, authorization.state, error="login_required")
            return _page("login.html", 200, client=client, error=None)
        code = self._provider.authorize(authorization, person, session[1])
        answer = self._return(redirect_uri, authorization.state, code=code)
        answer.set_cookie(COOKIE, cookie, httponly=True, samesite="lax")
        return answer

    async def token(self, request: Request) -> Response:
        form = {name: str(value) for name, value in (await request.form()).items()}
        client = _authenticated_client(Directory.read(self._file), request, form)
        if client is None:
            return JSONResponse({"error": "invalid_client"}, 401, {"WWW-Authenticate": "Basic"})
        try:
            tokens = self._provider.exchange(client, form)
        except RequestRefused as e:
            return JSONResponse({"error": e.error, "error_description": str(e)}, 400)
        return JSONResponse(tokens, headers={"Cache-Control": "no-store"})

    async def keys(self, request: Request) -> Response:
        return JSONResponse({"keys": [key.public() for key in self._provider.keys]})

    async def user_info(self, request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        claims = self._provider.user_info(token) if scheme.lower() == "bearer" else None
        if claims is None:
            return Response(status_code=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
        return JSONResponse(claims)

    async def end_session(self, request: Request) -> Response:
        directory = Directory.read(self._file)
        client = directory.clients.get(request.query_params.get("client_id", ""))
        back = request.query_params.get("post_logout_redirect_uri", "")
        self._provider.sign_out(request.cookies.get(COOKIE, ""))
        if client is not None and back in client.post_logout_redirect_uris:
            answer: Response = RedirectResponse(back, SEE_OTHER)
        else:
            answer = _page("refused.html", 200, reason="You are signed out.")
        answer.delete_cookie(COOKIE)
        return answer

    async def rotate(self, request: Request) -> Response:
        self._provider.rotate()
        return JSONResponse({})

    def _return(self, redirect_uri: str, state: str, **members: str) -> Response:
        query = urlencode({**members, "state": state, "iss": self._provider.issuer})
        return RedirectResponse(f"{redirect_uri}?{query}", SEE_OTHER)


def _authorization(query: Mapping[str, str], client: Client, redirect_uri: str) -> Authorization:
    """Raises RequestRefused."""
    if query.get("response_type") != "code":
        raise RequestRefused("unsupported_response_type", "only code is supported")
    scopes = frozenset(query.get("scope", "").split())
    if "openid" not in scopes:
        raise RequestRefused("invalid_scope", "the scope openid is missing")
    challenge = query.get("code_challenge", "")
    if query.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
        raise RequestRefused("invalid_request", "PKCE is required, with S256")
    if not query.get("state") or not query.get("nonce"):
        raise RequestRefused("invalid_request", "state and nonce are required")
    prompt = query.get("prompt", "")
    return Authorization(client, redirect_uri, query["state"], query["nonce"], challenge, scopes, prompt)


def _authenticated_client(directory: Directory, request: Request, form: Mapping[str, str]) -> Client | None:
    """RFC 6749 section 2.3.1."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            name, _, secret = b64decode(credentials, validate=True).decode().partition(":")
        except (Base64Error, UnicodeDecodeError):
            return None
        name, secret = unquote_plus(name), unquote_plus(secret)
    else:
        name, secret = form.get("client_id", ""), form.get("client_secret", "")
    client = directory.clients.get(name)
    return client if client is not None and client.client_secret == secret else None


def _page(template: str, status: int, **values: Any) -> HTMLResponse:
    return HTMLResponse(_templates.get_template(template).render(**values), status)
