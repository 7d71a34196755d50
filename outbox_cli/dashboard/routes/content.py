"""Documents and their topic graphs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from starlette.responses import JSONResponse, Response

from outbox_cli.dashboard.facts.content import DocumentDetail, Documents
from outbox_cli.dashboard.facts.content import document as find_document
from outbox_cli.dashboard.facts.content import documents as find_documents
from outbox_cli.dashboard.routes.answering import TheSite, Viewer, page
from outbox_cli.dashboard.site import site_of

router = APIRouter()


def documents(site: TheSite, q: Annotated[str, Query(max_length=200)] = "") -> Documents:
    """Return the latest documents, and their count."""
    return site.reader.ask(("documents", q), lambda connection: find_documents(connection, q))


def document(site: TheSite, id: str) -> DocumentDetail | None:
    """Return one document: its extracted topics, and its baseline topic graph."""
    return site.reader.ask(("document", id), lambda connection: find_document(connection, id))


def with_graph(site: TheSite, id: str) -> DocumentDetail:
    found = document(site, id)
    if found is None or found.graph is None:
        raise HTTPException(404, "there is no baseline of this document")
    return found


WithGraph = Annotated[DocumentDetail, Depends(with_graph)]


@router.get("/content/graph.json", summary="The baseline topic graph of a document, as it is stored")
def graph_json(_person: Viewer, found: WithGraph) -> Any:
    return JSONResponse(found.graph, headers={"Content-Disposition": 'attachment; filename="topic-graph.json"'})


@router.get("/content/graph.svg", summary="The baseline topic graph of a document, drawn")
def graph_svg(request: Request, _person: Viewer, found: WithGraph) -> Response:
    answer = site_of(request).render(request, "graph.svg", found=found)
    headers = {"Content-Disposition": 'attachment; filename="topic-graph.svg"'}
    return Response(answer.body, media_type="image/svg+xml", headers=headers)


page(router, "/content", "content.html", documents)
page(router, "/content/document", "document.html", document)
