"""Identify the person behind a request: by session cookie, bearer token, a trusted proxy's header, or the host.

A change needs a proof that our own page requested it. A browser sends cookies, and a proxy sends headers, with requests
from other pages, too, so such requests need a CSRF token; a bearer token is proof by itself.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, Request

from outbox_cli.dashboard.access.sessions import LENGTH_S, Session, Sessions
from outbox_cli.dashboard.access.tokens import Role, Tokens
from relay.observe.text import one_line
from relay.serving.clients import Networks, client_of
from relay.serving.rate import Rate

NAME_LENGTH = 64
CSRF_HEADER = "x-csrf-token"
WRONG_TOKENS_PER_S, WRONG_TOKENS_AT_ONCE = 1 / 30, 5  # for one client


class Refused(Exception):
    """The request is not permitted.

    Args:
        said: The reason, for people.
        status: The HTTP status: 401 if the person is unknown, 403 if the person has no permission.
    """

    def __init__(self, said: str, status: int = 403) -> None:
        super().__init__(said)
        self.status = status


class TooManyTries(Refused):
    """This client has sent too many wrong tokens.

    Args:
        wait_s: The time until it may try again, in seconds.
    """

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"too many wrong tokens: try again in {wait_s} s", 429)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Person:
    """The person behind a request.

    Args:
        name: The person's name in the audit.
        may_change: Whether the person is an operator, and changes are allowed.
        csrf: The token that a form must send; ``None``: no token is needed, because the request is proof by itself.
        can_log_out: Whether the person logged in here.
    """

    name: str
    may_change: bool = False
    csrf: str | None = None
    can_log_out: bool = False


Who = Callable[[HTTPConnection], Person | None]


@dataclass
class Access:
    """The access rules of one dashboard.

    Args:
        tokens: The tokens that are accepted.
        allow_changes: Whether operators may change anything.
        user_header: The header in which a trusted proxy names the user.
        proxies: The addresses of these proxies.
        who: The host application's function, for a mounted dashboard; it replaces all other ways to identify a person.
        cookie: The name of the session's cookie.
    """

    tokens: Tokens = field(default_factory=Tokens)
    allow_changes: bool = False
    user_header: str | None = None
    proxies: Networks = field(default_factory=lambda: Networks(()))
    who: Who | None = None
    cookie: str = "outbox_session"

    def __post_init__(self) -> None:
        self.sessions, self._wrong_tokens = Sessions(), Rate(WRONG_TOKENS_PER_S, WRONG_TOKENS_AT_ONCE)
        self._secret = secrets.token_bytes(32)

    @property
    def has_login(self) -> bool:
        """Return whether there is a login page."""
        return self.who is None

    def person(self, request: HTTPConnection) -> Person:
        """Return the person behind a request.

        Raises:
            Refused: The person is unknown.
        """
        found = self._by_host(request) if self.who else self._by_proxy(request) or self._by_bearer(request)
        found = found or (None if self.who else self._by_cookie(request))
        if found is None:
            raise Refused("log in first", 401)
        return found

    def log_in(self, request: Request, token: str, name: str) -> Session:
        """Begin a session.

        Raises:
            Refused: The token is wrong, or too many wrong tokens were sent.
        """
        role = self._role(request, token.strip())
        return self.sessions.begin(one_line(name.strip())[:NAME_LENGTH] or role, role)

    def log_out(self, request: HTTPConnection) -> None:
        """End the session of this request."""
        self.sessions.end(request.cookies.get(self.cookie, ""))

    def require_change(self, request: Request, person: Person, csrf: str | None) -> None:
        """Check that a change is permitted.

        Args:
            request: The request for it.
            person: The person behind the request.
            csrf: The token in the form; a token in the header is accepted, too.

        Raises:
            Refused: The person may only view, or the request did not come from our page.
        """
        if not person.may_change:
            why = "you may only look" if self.allow_changes else "changes are off: start it with --allow-changes"
            raise Refused(why)
        self.require_own_page(request, person, csrf)

    def require_own_page(self, request: Request, person: Person, csrf: str | None) -> None:
        """Check that our own page made a request.

        Raises:
            Refused: Another site's page made it, or a page that is too old.
        """
        if person.csrf is None:
            return
        given = csrf or request.headers.get(CSRF_HEADER, "")
        if not hmac.compare_digest(given.encode(), person.csrf.encode()) or not is_of_own_origin(request):
            raise Refused("this form is too old, or another page sent it: load the page again")

    def is_secure(self, request: HTTPConnection) -> bool:
        """Return whether the browser uses TLS, to us or to a trusted proxy."""
        forwarded = request.headers.get("x-forwarded-proto", "") if self._is_from_proxy(request) else ""
        return request.url.scheme == "https" or forwarded == "https"

    # ----------------------------------------------------------------------------------------------------- ways in

    def _by_host(self, request: HTTPConnection) -> Person | None:
        assert self.who is not None
        found = self.who(request)
        return None if found is None else Person(found.name, found.may_change, self._csrf(f"host:{found.name}"))

    def _by_proxy(self, request: HTTPConnection) -> Person | None:
        name = request.headers.get(self.user_header, "") if self.user_header else ""
        if not name or not self._is_from_proxy(request):
            return None
        return Person(one_line(name)[:NAME_LENGTH], self.allow_changes, self._csrf(f"proxy:{name}"))

    def _by_bearer(self, request: HTTPConnection) -> Person | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        role = self._role(request, token.strip())
        name = one_line(request.headers.get("x-actor", "").strip())[:NAME_LENGTH] or role
        return Person(name, self._may_change(role))

    def _by_cookie(self, request: HTTPConnection) -> Person | None:
        session = self.sessions.find(request.cookies.get(self.cookie, ""))
        if session is None:
            return None
        return Person(session.name, self._may_change(session.role), self._csrf(session.id), can_log_out=True)

    def _may_change(self, role: Role) -> bool:
        return self.allow_changes and role == "operator"

    def _role(self, request: HTTPConnection, token: str) -> Role:
        client = client_of(request.client.host if request.client else "")
        if wait_s := self._wrong_tokens.take(client, monotonic(), count=False):
            raise TooManyTries(wait_s)
        role = self.tokens.role_of(token)
        if role is None:
            self._wrong_tokens.take(client, monotonic())
            raise Refused("this token is not valid", 401)
        return role

    def _is_from_proxy(self, request: HTTPConnection) -> bool:
        return request.client is not None and request.client.host in self.proxies

    def _csrf(self, of: str) -> str:
        return hmac.new(self._secret, of.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def is_of_own_origin(request: Request) -> bool:
    """Return whether the browser names our own page as the origin, or names none."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


SESSION_LENGTH_S = int(LENGTH_S)
