"""Register pages and changes, each with an HTML and a JSON answer.

Annotations are not postponed here: FastAPI could not resolve annotations that name a parameter of `page`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from outbox_cli.dashboard.access import Person
from outbox_cli.dashboard.jobs import Job
from outbox_cli.dashboard.site import Site, site_of

MOST_BYTES = 2 * 1024 * 1024


class ChangeForm(BaseModel):
    """The fields that every change has.

    Args:
        reason: The reason, for the audit.
    """

    reason: str | None = None


@dataclass(frozen=True)
class Done:
    """The result of a change.

    Args:
        said: The result, in a sentence.
        job: The job that still runs, or ``None``.
    """

    said: str
    job: Job | None = None


def viewer(request: Request) -> Person:
    """Return the person behind a request. Raises `Refused` if the person is unknown."""
    person = site_of(request).access.person(request)
    request.state.person = person
    return person


Viewer = Annotated[Person, Depends(viewer)]
TheSite = Annotated[Site, Depends(site_of)]
Act = Callable[[Site, Person, Any], tuple[Done, str]]


def page(
    router: APIRouter,
    path: str,
    template: str,
    facts: Callable[..., Any],
    *,
    json_path: str | None = None,
    elsewhere: Callable[[Any], str | None] = lambda found: None,
) -> None:
    """Register a page.

    Args:
        router: The router to register it at.
        path: Its address.
        template: The template; it gets the data as `found`.
        facts: Returns the data, as a dependency of FastAPI; ``None`` is a 404.
        json_path: The address of the data, if it is not the page's with `.json`.
        elsewhere: Returns another page to redirect to, or ``None``.
    """

    def html(request: Request, _person: Viewer, found: Annotated[Any, Depends(facts)]) -> Response:
        site = site_of(request)
        if found is not None and (other := elsewhere(found)) is not None:
            return site.goto(request, other)
        return site.render(request, template, status=200 if found is not None else 404, found=found)

    def plain(_person: Viewer, found: Annotated[Any, Depends(facts)]) -> Any:
        if found is None:
            raise HTTPException(404, "it does not exist")
        return found

    answer = get_type_hints(facts).get("return", Any)
    summary = (facts.__doc__ or "").strip().split("\n")[0]
    router.add_api_route(
        json_path or f"{path}.json", plain, methods=["GET"], response_model=answer, summary=summary, name=facts.__name__
    )  # registered before the page, whose pattern could match this address
    router.add_api_route(path, html, methods=["GET"], include_in_schema=False)


def change(router: APIRouter, path: str, form: type[ChangeForm], act: Act) -> None:
    """Register a change, for operators.

    Args:
        router: The router to register it at.
        path: Its address; with `.json` it takes JSON or a form, and answers with JSON.
        form: The model of its fields.
        act: Makes the change; returns the result and the page to go to.
    """

    def run(request: Request, person: Person, told: dict[str, Any]) -> tuple[Done, str]:
        site = site_of(request)
        site.access.require_change(request, person, told.pop("csrf", None))
        try:
            asked = form.model_validate({**told, **request.path_params})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise HTTPException(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        done, back = act(site, person, asked)
        site.changed()
        return done, back

    def html(request: Request, person: Viewer, told: Annotated[dict[str, Any], Depends(given)]) -> Response:
        done, back = run(request, person, told)
        return site_of(request).goto(request, back if done.job is None else f"/jobs/{done.job.id}")

    def plain(request: Request, person: Viewer, told: Annotated[dict[str, Any], Depends(given)]) -> Done:
        return run(request, person, told)[0]

    body = {"requestBody": {"content": {"application/json": {"schema": form.model_json_schema()}}}}
    router.add_api_route(path, html, methods=["POST"], include_in_schema=False)
    summary = (form.__doc__ or "").strip().split("\n")[0]
    router.add_api_route(
        f"{path}.json", plain, methods=["POST"], summary=summary, openapi_extra=body, name=form.__name__
    )


async def given(request: Request) -> dict[str, Any]:
    """Return the fields of a form or a JSON body. Empty fields count as not given."""
    body = await _body(request)
    try:
        if request.headers.get("content-type", "").partition(";")[0].strip() == "application/json":
            return dict(json.loads(body or b"{}"))
        pairs = parse_qsl(body.decode(), keep_blank_values=False, max_num_fields=100)
        return dict(pairs)
    except (ValueError, TypeError, RecursionError) as error:
        raise HTTPException(400, f"this cannot be read: {error}") from None


async def _body(request: Request) -> bytes:
    found = bytearray()
    async for piece in request.stream():
        found += piece
        if len(found) > MOST_BYTES:
            raise HTTPException(413, "this is too long")
    return bytes(found)
