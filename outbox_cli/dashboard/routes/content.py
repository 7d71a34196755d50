"""Documents and their topic graphs."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from pydantic_core import to_json
from starlette.responses import JSONResponse, Response

from outbox_cli.dashboard.drawing import Drawing, draw
from outbox_cli.dashboard.facts.content import DocumentDetail, Documents
from outbox_cli.dashboard.facts.content import document as find_document
from outbox_cli.dashboard.facts.content import documents as find_documents
from outbox_cli.dashboard.routes.answering import TheSite, Viewer, page
from outbox_cli.dashboard.site import Site, site_of

router = APIRouter()


def documents(site: TheSite, q: Annotated[str, Query(max_length=200)] = "") -> Documents:
    """Return the latest documents, and their count."""
    return site.reader.ask(("documents", q), lambda connection: find_documents(connection, q))


def document(site: TheSite, id: str) -> DocumentDetail | None:
    """Return one document: its extracted topics, and its baseline topic graph."""
    return site.reader.ask(("document", id), lambda connection: find_document(connection, id))


page(router, "/content", "content.html", documents)


@router.get("/content/graph.json", summary="The baseline topic graph of a document, as it is stored")
def graph_json(_person: Viewer, site: TheSite, id: str) -> Any:
    found = document(site, id)
    if found is None or found.graph is None:
        raise HTTPException(404, "there is no baseline of this document")
    return JSONResponse(found.graph, headers={"Content-Disposition": 'attachment; filename="topic-graph.json"'})


@router.get("/content/graph.svg", summary="The baseline topic graph of a document, drawn")
def graph_svg(request: Request, _person: Viewer, site: TheSite, id: str) -> Response:
    found = document(site, id)
    if found is None or found.graph is None:
        raise HTTPException(404, "there is no baseline of this document")
    answer = site_of(request).render(request, "graph.svg", drawing=drawing_of(site, found), title=found.document.title)
    return Response(
        answer.body,
        media_type="image/svg+xml",
        headers={"Content-Disposition": 'attachment; filename="topic-graph.svg"'},
    )


@router.get("/content/document", include_in_schema=False)
def document_html(request: Request, _person: Viewer, site: TheSite, id: str) -> Response:
    found = document(site, id)
    drawing = drawing_of(site, found) if found is not None and found.graph is not None else None
    status = 404 if found is None else 200
    return site_of(request).render(request, "document.html", status=status, found=found, drawing=drawing)


@router.get("/content/document.json", summary="One document: its topics, and its baseline topic graph")
def document_json(_person: Viewer, site: TheSite, id: str) -> DocumentDetail:
    found = document(site, id)
    if found is None:
        raise HTTPException(404, "no document has this id")
    return found


def drawing_of(_site: Site, found: DocumentDetail) -> Drawing:
    """Lay out the graph of a document, once for all viewers."""
    return _drawn(to_json(found.graph))


@lru_cache(maxsize=64)
def _drawn(graph: bytes) -> Drawing:
    from pydantic_core import from_json

    return draw(from_json(graph))
