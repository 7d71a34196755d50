"""The answer to a call that is not taken: a status, a code for programs, a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from fastapi.responses import JSONResponse
from pydantic import BaseModel

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
CLOSING = MappingProxyType({"Connection": "close"})


class Problem(BaseModel):
    """The body of every error answer; its first three fields are NestJS's."""

    statusCode: int
    message: str
    error: str
    reason: str


class Refusal(Exception):
    """Ends a call with an error answer.

    Args:
        status: The status code.
        reason: A word for programs, such as ``"unknown_content"``.
        message: A sentence for people; it repeats nothing that the caller sent.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, reason: str, message: str, headers: Mapping[str, str] = NO_HEADERS) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.headers = status, reason, message, headers

    def response(self) -> JSONResponse:
        problem = Problem(
            statusCode=self.status, message=self.message, error=HTTPStatus(self.status).phrase, reason=self.reason
        )
        return JSONResponse(problem.model_dump(), self.status, dict(self.headers))


def unauthorized() -> Refusal:
    """Return the same answer for a secret that is missing, empty, wrong or repeated, as the guide's guard does.

    Source of the header: https://www.rfc-editor.org/rfc/rfc9110#section-15.5.2
    """
    return Refusal(401, "unauthorized", "Invalid internal secret", {"WWW-Authenticate": "X-Internal-Secret"})
