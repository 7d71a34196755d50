"""The baseline graph of an extraction: its topics, their co-occurrence, importance and communities.

The functions are pure: the same topics give the same JSON-serialisable graph every time. Topics are numbered by weight
before networkx sees them, because a set of strings iterates in another order in every process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import networkx as nx
import numpy as np
from pydantic import BaseModel, Field

SEED = 1
DECIMALS = 6
MAX_NODES = 500


class Topic(BaseModel):
    """One topic as a worker stores it: its weight, and the positions of the sentences in which it occurs."""

    topic: str = Field(min_length=1)
    weight: float = Field(ge=0, allow_inf_nan=False)
    sentences: frozenset[int] = frozenset()


@dataclass(frozen=True)
class BaselineGraph:
    """Topics as nodes, strongest first; edges weighted by the number of sentences that two topics share."""

    nodes: list[dict[str, Any]]
    edges: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        return {"nodes": self.nodes, "edges": self.edges}


def parse_topics(raw: object) -> list[Topic]:
    """Return the stored topics, checked; raise pydantic's `ValidationError` with the place of the fault."""
    return _Topics.model_validate({"topics": raw}).topics


class _Topics(BaseModel):
    topics: list[Topic]


def build_baseline(topics: Iterable[Topic]) -> BaselineGraph:
    """Build the graph. A topic that is named twice counts once, with the greater weight and the sentences of both.

    `centrality` is PageRank over the co-occurrences; the sum over all nodes is 1. `community` numbers the Louvain
    communities, the largest first. Only the 500 strongest topics are used, because the work grows with their square.
    """
    ranked = _ranked(topics)
    graph = _co_occurrences(ranked)
    centrality = _page_rank(graph)
    community = _communities(graph)
    return BaselineGraph(
        nodes=[
            {
                "id": topic.topic,
                "weight": round(topic.weight, DECIMALS),
                "centrality": centrality[number],
                "community": community[number],
            }
            for number, topic in enumerate(ranked)
        ],
        edges=[
            {"source": ranked[a].topic, "target": ranked[b].topic, "weight": weight}
            for a, b, weight in sorted(graph.edges(data="weight"))
        ],
    )


def _ranked(topics: Iterable[Topic]) -> list[Topic]:
    merged: dict[str, Topic] = {}
    for topic in topics:
        merged[topic.topic] = _merge(merged[topic.topic], topic) if topic.topic in merged else topic
    return sorted(merged.values(), key=lambda topic: (-topic.weight, topic.topic))[:MAX_NODES]


def _merge(one: Topic, other: Topic) -> Topic:
    return Topic(topic=one.topic, weight=max(one.weight, other.weight), sentences=one.sentences | other.sentences)


def _co_occurrences(ranked: Sequence[Topic]) -> nx.Graph:
    graph = nx.Graph()
    graph.add_nodes_from(range(len(ranked)))
    for (a, one), (b, other) in combinations(enumerate(ranked), 2):
        if shared := len(one.sentences & other.sentences):
            graph.add_edge(a, b, weight=shared)
    return graph


def _page_rank(graph: nx.Graph) -> list[float]:
    """Return PageRank by power iteration on networkx's Google matrix; `nx.pagerank` itself would need scipy."""
    count = len(graph)
    if not count:
        return []
    matrix = np.asarray(nx.google_matrix(graph, nodelist=range(count)))
    rank = np.full(count, 1 / count)
    for _ in range(100):
        rank = rank @ matrix
    return [round(float(score), DECIMALS) for score in rank]


def _communities(graph: nx.Graph) -> dict[int, int]:
    found = nx.community.louvain_communities(graph, seed=SEED)
    ordered = sorted(found, key=lambda members: (-len(members), min(members)))
    return {node: number for number, members in enumerate(ordered) for node in members}
