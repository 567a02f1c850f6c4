"""Who may ask: names of the server, pages of a browser, a token.

The server answers to its own names alone, as a page of another site can let its own name lead to this machine (DNS
rebinding). Of a browser it answers its own pages alone; a link elsewhere may open the document of its page. On any bind
but loopback, and where a token is given, each request carries the token, unless it is for the files of the page, which
hold nothing of the index.
"""

import hmac

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridgetower.serving.http.config import HOST, MOST_HEAD, Config, as_host
from bridgetower.serving.http.errors import Problem, ending
from bridgetower.serving.http.page_files import DOCUMENT
from bridgetower.serving.request_queue import RequestQueue

_SAFE_SITES = ("same-origin", "none")  # of Sec-Fetch-Site; "none" is a person's own request, as from the address bar
_LINK = (("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"))  # of a whole window, not of a frame
_OPEN_PATHS = ("/healthz",)  # need no token

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}  # of every answer, unless a route has set them
_PREFLIGHT = {
    "Access-Control-Allow-Headers": "Accept, Authorization, Content-Type, If-None-Match, If-Range, Range",
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Max-Age": "600",
}


class Safety:
    """ASGI middleware that refuses requests before anything of them is read, and sets the headers of every answer."""

    def __init__(self, app: ASGIApp, config: Config, queue: RequestQueue, page_paths: frozenset[str]) -> None:
        """`page_paths` are those of the files of the page; none where the server has no page."""
        self._app, self._queue = app, queue
        self._names, self._origins = config.own_names, frozenset(config.allow_origins)
        self._token = None if config.token is None else config.token.encode()
        self._open_paths = page_paths.union(_OPEN_PATHS)
        self._has_page = DOCUMENT in page_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        allowed = origin if origin in self._origins else None

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    answered.setdefault(name, value)
                if allowed is not None:
                    answered["Access-Control-Allow-Origin"] = allowed
                    answered["Access-Control-Expose-Headers"] = "Content-Range, ETag, Retry-After"
                if self._origins:
                    answered.add_vary_header("Origin")
            await send(message)

        try:
            _check_size(scope)
            self._check_name(scope, headers)
            self._check_page(scope, headers, allowed)
            if allowed and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await _answer_preflight(with_headers)
                return
            self._check_token(scope, headers)
            if self._queue.is_draining:
                raise ending()
        except Problem as problem:
            await problem.response(scope["path"])(scope, receive, with_headers)
            return
        await self._app(scope, receive, with_headers)

    def _check_name(self, scope: Scope, headers: Headers) -> None:
        hosts = headers.getlist("host")
        found = HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
        # The address that the connection has come to is ours, and no name that leads elsewhere later.
        address = as_host(scope["server"][0]) if scope.get("server") else None
        if found is None or not (found[1] in self._names or found[1] == address):
            raise Problem(421, "misdirected", "the server does not answer to this Host: --allow-host adds a name")

    def _check_page(self, scope: Scope, headers: Headers, allowed: str | None) -> None:
        origins, sites = headers.getlist("origin"), headers.getlist("sec-fetch-site")
        if len(origins) == 1 and allowed is not None:
            return
        if self._has_page and not origins and _is_link(scope, headers):
            return
        host = headers["host"].lower()
        own = (f"http://{host}", f"https://{host}")  # a proxy may add TLS
        if any(origin.lower() not in own for origin in origins) or any(site not in _SAFE_SITES for site in sites):
            raise Problem(403, "cross_origin", "pages of other sites may not ask this server")

    def _check_token(self, scope: Scope, headers: Headers) -> None:
        if self._token is None or scope["path"] in self._open_paths:
            return
        given = headers.getlist("authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        right = hmac.compare_digest(token.strip(" ").encode("latin-1"), self._token)
        if scheme.lower() != "bearer" or not right:
            wanted = {"WWW-Authenticate": 'Bearer realm="bt"'}
            raise Problem(401, "no_token", "the token of the server is wanted: Authorization: Bearer TOKEN", wanted)


def _is_link(scope: Scope, headers: Headers) -> bool:
    """Return whether a person opens the page by a link, which may be in a page of another site: that learns nothing, as
    the document holds nothing of the index, and no frame shows it."""
    is_document = scope["path"] == DOCUMENT and scope["method"] in ("GET", "HEAD")
    return is_document and all(headers.getlist(name) == [value] for name, value in _LINK)


async def _answer_preflight(send: Send) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in _PREFLIGHT.items()]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body"})


def _check_size(scope: Scope) -> None:
    """Refuse a large head; uvicorn does that only where it arrives in several pieces."""
    size = len(scope["raw_path"]) + len(scope["query_string"])
    size += sum(len(name) + len(value) for name, value in scope["headers"])
    if size > MOST_HEAD:
        raise Problem(431, "too_large", "the head of the request is too large")
