"""Draw a topic graph: the position, size and colour of each topic, and the labels that have room.

Communities get places of their own; inside and between them the strongest edges attract. Drawing all edges of a dense
graph would give a grey ball, so an edge is drawn at first only if it is among the strongest of one of its ends. Then
overlapping circles are pushed apart, and labels are set by centrality, each where it covers no other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, MARGIN = 1200.0, 760.0, 46.0
COLOURS = ("#3b6fe0", "#c2410c", "#0f8a5f", "#9333c9", "#b7791f", "#0e7f9c", "#c81e6b", "#6b8e23", "#a3543a", "#5b6472")
STRONGEST = 3  # edges of a topic that are drawn at first
ROUNDS = 70
SEED = 1
CHARACTER = 0.55  # the width of a character, as a share of its height

Points = NDArray[np.float64]
Box = tuple[float, float, float, float]


class Label(NamedTuple):
    """The name of a topic.

    Args:
        level: 0: it is shown at once; 1: it is shown after zooming in.
    """

    x: float
    y: float
    anchor: str
    size: float
    level: int


@dataclass(frozen=True)
class Node:
    """A topic as a circle, with its label."""

    number: int
    name: str
    x: float
    y: float
    radius: float
    colour: str
    community: int
    weight: float
    centrality: float
    label: Label


@dataclass(frozen=True)
class Edge:
    """Two topics that occur together, as a line.

    Args:
        strong: Whether it is drawn at first; if not, only while the pointer is on one of its ends.
    """

    source: int
    target: int
    x1: float
    y1: float
    x2: float
    y2: float
    width: float
    weight: float
    strong: bool


@dataclass(frozen=True)
class Drawing:
    """A graph with its layout."""

    width: float
    height: float
    nodes: list[Node]
    edges: list[Edge]
    communities: list[tuple[int, str, int, str]]


def draw(graph: dict[str, Any]) -> Drawing:
    """Lay out a baseline; the same graph always looks the same.

    Args:
        graph: ``{"nodes": [{"id", "weight", "centrality", "community"}], "edges": [{"source", "target", "weight"}]}``.
    """
    nodes = [node for node in graph.get("nodes", []) if isinstance(node, dict)]
    number = {str(node.get("id")): index for index, node in enumerate(nodes)}
    edges = [
        (number[str(e["source"])], number[str(e["target"])], float(e.get("weight", 1)))
        for e in graph.get("edges", [])
        if str(e.get("source")) in number and str(e.get("target")) in number
    ]
    radii = _radii(nodes)
    strong = _strongest(edges)
    places = _places(nodes, edges, strong, radii)
    labels = _labels(nodes, places, radii)
    made = [_node(index, node, places[index], radii[index], labels[index]) for index, node in enumerate(nodes)]
    return Drawing(WIDTH, HEIGHT, made, _lines(edges, strong, places), _communities(nodes))


def _node(index: int, node: dict[str, Any], place: Points, radius: float, label: Label) -> Node:
    x, y = _point(place)
    return Node(
        number=index,
        name=str(node.get("id")),
        x=x,
        y=y,
        radius=radius,
        colour=_colour(node),
        community=int(node.get("community", 0)),
        weight=float(node.get("weight", 0)),
        centrality=float(node.get("centrality", 0)),
        label=label,
    )


def _point(place: Points) -> tuple[float, float]:
    return round(float(place[0]), 1), round(float(place[1]), 1)


def _colour(node: dict[str, Any]) -> str:
    return COLOURS[min(int(node.get("community", 0)), len(COLOURS) - 1)]


def _radii(nodes: list[dict[str, Any]]) -> list[float]:
    """Return radii: areas grow with centrality, and together take a fair part of the canvas."""
    scores = [max(float(node.get("centrality", 0)), 0.0) for node in nodes]
    most = max(scores, default=0.0) or 1.0
    largest = min(34.0, 12 + 190 / math.sqrt(len(nodes) + 1))
    return [round(max(3.5, largest * math.sqrt(score / most)), 1) for score in scores]


def _strongest(edges: list[tuple[int, int, float]]) -> set[tuple[int, int]]:
    """Return the strongest edges of each topic, and those that connect each component."""
    by_end: dict[int, list[tuple[float, tuple[int, int]]]] = {}
    for a, b, weight in edges:
        by_end.setdefault(a, []).append((weight, (a, b)))
        by_end.setdefault(b, []).append((weight, (a, b)))
    kept = {edge for each in by_end.values() for _, edge in sorted(each, reverse=True)[:STRONGEST]}
    graph = nx.Graph()
    graph.add_weighted_edges_from(edges)
    given = {(a, b) for a, b, _ in edges}
    for a, b in nx.maximum_spanning_edges(graph, data=False):
        kept.add((a, b) if (a, b) in given else (b, a))
    return kept


def _places(
    nodes: list[dict[str, Any]], edges: list[tuple[int, int, float]], strong: set[tuple[int, int]], radii: list[float]
) -> Points:
    if not nodes:
        return np.zeros((0, 2))
    graph = nx.Graph()
    graph.add_nodes_from(range(len(nodes)))
    graph.add_weighted_edges_from((a, b, math.log1p(w)) for a, b, w in edges if (a, b) in strong)
    start = _by_community(nodes)
    if len(nodes) > 1:
        k = 1.3 / math.sqrt(len(nodes))
        found = nx.spring_layout(graph, pos=start, k=k, iterations=ROUNDS, seed=SEED, weight="weight")
    else:
        found = start
    return _apart(_fitted(np.array([found[index] for index in range(len(nodes))])), np.array(radii))


def _by_community(nodes: list[dict[str, Any]]) -> dict[int, Points]:
    """Place communities on a spiral, the largest in the middle, and the members of each on a spiral of their own."""
    members: dict[int, list[int]] = {}
    for index, node in enumerate(nodes):
        members.setdefault(int(node.get("community", 0)), []).append(index)
    places: dict[int, Points] = {}
    for order, community in enumerate(sorted(members)):
        angle, distance = order * 2.4, 0.42 * math.sqrt(order)
        centre = np.array([math.cos(angle), math.sin(angle)]) * distance
        spread = 0.9 * math.sqrt(len(members[community]) / len(nodes)) / 2
        for nth, index in enumerate(members[community]):
            turn, out = nth * 2.4, spread * math.sqrt((nth + 0.5) / len(members[community]))
            places[index] = centre + np.array([math.cos(turn), math.sin(turn)]) * out
    return places


def _fitted(places: Points) -> Points:
    """Stretch places over the canvas, half by ranks and half by distances: outliers would squeeze all others."""
    low, high = places.min(axis=0), places.max(axis=0)
    spread = np.where(high - low > 1e-9, high - low, 1.0)
    even = (places - low) / spread
    if len(places) > 2:
        ranks = places.argsort(axis=0).argsort(axis=0) / (len(places) - 1)
        even = (even + ranks) / 2
    centred = np.where(high - low > 1e-9, even, 0.5)
    room = np.array([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    return np.asarray(centred * room + MARGIN, dtype=np.float64)


def _apart(places: Points, radii: NDArray[np.float64]) -> Points:
    """Push overlapping circles apart, with room for a label below."""
    gap = 30.0 if len(places) <= 60 else 8.0
    for _ in range(60):
        offset = places[:, None] - places[None]
        distance = np.hypot(offset[..., 0], offset[..., 1]) + np.eye(len(places)) * 1e9
        short = np.clip(radii[:, None] + radii[None] + gap - distance, 0, None)
        if not short.any():
            break
        unit = offset / np.maximum(distance, 1e-6)[..., None]
        places = places + (unit * short[..., None]).sum(axis=1) * 0.3
        places = np.clip(places, MARGIN, [WIDTH - MARGIN, HEIGHT - MARGIN])
    return places


def _labels(nodes: list[dict[str, Any]], places: Points, radii: list[float]) -> list[Label]:
    """Set labels by centrality, each at the first side of its circle where it covers no more important label."""
    order = sorted(range(len(nodes)), key=lambda index: -radii[index])
    taken: list[Box] = []
    circles: list[Box] = [_around(places[index], radii[index]) for index in order[:60]]
    found: dict[int, Label] = {}
    for index in order:
        name, radius = str(nodes[index].get("id")), radii[index]
        size = round(11 + min(radius, 30) / 6, 1)
        x, y = map(float, places[index])
        own = _around(places[index], radius)
        level, chosen = 1, (x, y + radius + size, "middle")
        for label_x, label_y, anchor in _sides(x, y, radius, size):
            box = _box(label_x, label_y, anchor, size, name)
            inside = box[0] > 2 and box[2] < WIDTH - 2 and box[1] > 2 and box[3] < HEIGHT - 2
            others = (circle for circle in circles if circle != own)
            if inside and not any(_cross(box, other) for other in (*taken, *others)):
                level, chosen = 0, (label_x, label_y, anchor)
                taken.append(box)
                break
        found[index] = Label(round(chosen[0], 1), round(chosen[1], 1), chosen[2], size, level)
    return [found[index] for index in range(len(nodes))]


def _sides(x: float, y: float, radius: float, size: float) -> list[tuple[float, float, str]]:
    return [
        (x, y + radius + size, "middle"),
        (x + radius + 4, y + size * 0.35, "start"),
        (x - radius - 4, y + size * 0.35, "end"),
        (x, y - radius - 5, "middle"),
    ]


def _box(x: float, y: float, anchor: str, size: float, name: str) -> Box:
    width = CHARACTER * size * len(name) + 4
    left = {"start": x, "middle": x - width / 2, "end": x - width}[anchor]
    return (left, y - size, left + width, y + size * 0.3)


def _around(place: Points, radius: float) -> Box:
    x, y = map(float, place)
    return (x - radius, y - radius, x + radius, y + radius)


def _cross(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _lines(edges: list[tuple[int, int, float]], strong: set[tuple[int, int]], places: Points) -> list[Edge]:
    most = max((weight for _, _, weight in edges), default=1.0)
    return [
        Edge(
            a,
            b,
            *_point(places[a]),
            *_point(places[b]),
            round(0.8 + 4.2 * weight / most, 2),
            weight,
            (a, b) in strong,
        )
        for a, b, weight in sorted(edges, key=lambda edge: edge[2])
    ]


def _communities(nodes: list[dict[str, Any]]) -> list[tuple[int, str, int, str]]:
    """Return (number, colour, members, strongest topics) of each community."""
    members: dict[int, list[dict[str, Any]]] = {}
    for node in nodes:
        members.setdefault(int(node.get("community", 0)), []).append(node)
    return [
        (
            community,
            _colour(each[0]),
            len(each),
            ", ".join(str(n.get("id")) for n in sorted(each, key=lambda n: -float(n.get("centrality", 0)))[:3]),
        )
        for community, each in sorted(members.items())
    ]
