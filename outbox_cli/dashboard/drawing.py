"""Draw a topic graph: the position, size and colour of each topic, and the labels that have room.

Each community gets its own place; inside and between communities the strongest edges attract. To draw all edges of a
dense graph would give a grey ball, so an edge is drawn at first only if it is among the strongest of one of its ends.
Then overlapping circles are pushed apart, and labels are set in the order of centrality, each where it covers no other
label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, MARGIN = 1200.0, 760.0, 46.0
COLOURS = ("#3b6fe0", "#c2410c", "#0f8a5f", "#9333c9", "#b7791f", "#0e7f9c", "#c81e6b", "#6b8e23", "#a3543a", "#5b6472")
STRONGEST = 3  # how many edges of a topic are drawn at first
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


@dataclass
class Node:
    """A topic as a circle, with its label."""

    number: int
    name: str
    weight: float
    centrality: float
    community: int
    radius: float = field(init=False)
    x: float = field(init=False)
    y: float = field(init=False)
    label: Label = field(init=False)

    @property
    def colour(self) -> str:
        """The colour of its community."""
        return COLOURS[min(self.community, len(COLOURS) - 1)]

    @property
    def box(self) -> Box:
        """The square around it."""
        return (self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius)


class Edge(NamedTuple):
    """Two topics that occur together, as a line.

    Args:
        source: The number of a topic.
        target: The number of the other topic.
        strong: Whether it is drawn at first; if not, it is drawn only while the pointer is on one of its ends.
    """

    source: int
    target: int
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
    topics = [topic for topic in graph.get("nodes", []) if isinstance(topic, dict)]
    nodes = [_node(number, topic) for number, topic in enumerate(topics)]
    number = {node.name: node.number for node in nodes}
    edges = [
        (number[str(e["source"])], number[str(e["target"])], float(e.get("weight", 1)))
        for e in graph.get("edges", [])
        if str(e.get("source")) in number and str(e.get("target")) in number
    ]
    strong = _strongest(edges)
    _size(nodes)
    _place(nodes, edges, strong)
    _label(nodes)
    return Drawing(WIDTH, HEIGHT, nodes, _lines(edges, strong), _communities(nodes))


def _node(number: int, topic: dict[str, Any]) -> Node:
    weight, centrality = float(topic.get("weight", 0)), float(topic.get("centrality", 0))
    return Node(number, str(topic.get("id")), weight, centrality, int(topic.get("community", 0)))


def _size(nodes: list[Node]) -> None:
    """Set radii: areas grow with centrality, and together take a fair part of the canvas."""
    most = max((node.centrality for node in nodes), default=0.0) or 1.0
    largest = min(34.0, 12 + 190 / math.sqrt(len(nodes) + 1))
    for node in nodes:
        node.radius = round(max(3.5, largest * math.sqrt(max(node.centrality, 0.0) / most)), 1)


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


def _place(nodes: list[Node], edges: list[tuple[int, int, float]], strong: set[tuple[int, int]]) -> None:
    if not nodes:
        return
    graph = nx.Graph()
    graph.add_nodes_from(range(len(nodes)))
    graph.add_weighted_edges_from((a, b, math.log1p(w)) for a, b, w in edges if (a, b) in strong)
    found = _by_community(nodes)
    if len(nodes) > 1:
        k = 1.3 / math.sqrt(len(nodes))
        found = nx.spring_layout(graph, pos=found, k=k, iterations=ROUNDS, seed=SEED, weight="weight")
    places = _fitted(np.array([found[node.number] for node in nodes]))
    for node, (x, y) in zip(nodes, _apart(places, np.array([node.radius for node in nodes])), strict=True):
        node.x, node.y = round(float(x), 1), round(float(y), 1)


def _by_community(nodes: list[Node]) -> dict[int, Points]:
    """Place communities on a spiral, the largest in the middle, and the members of each on a smaller spiral."""
    places: dict[int, Points] = {}
    for order, members in enumerate(_members(nodes).values()):
        angle, distance = order * 2.4, 0.42 * math.sqrt(order)
        centre = np.array([math.cos(angle), math.sin(angle)]) * distance
        spread = 0.9 * math.sqrt(len(members) / len(nodes)) / 2
        for nth, node in enumerate(members):
            turn, out = nth * 2.4, spread * math.sqrt((nth + 0.5) / len(members))
            places[node.number] = centre + np.array([math.cos(turn), math.sin(turn)]) * out
    return places


def _members(nodes: list[Node]) -> dict[int, list[Node]]:
    """Return the topics of each community."""
    members: dict[int, list[Node]] = {}
    for node in sorted(nodes, key=lambda node: node.community):
        members.setdefault(node.community, []).append(node)
    return members


def _fitted(places: Points) -> Points:
    """Stretch places over the canvas, half by ranks and half by distances, so that outliers do not squeeze the rest."""
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


def _label(nodes: list[Node]) -> None:
    """Set labels in the order of centrality, each at the first side of its circle where it covers no earlier label."""
    order = sorted(nodes, key=lambda node: -node.radius)
    taken: list[Box] = []
    for node in order:
        size = round(11 + min(node.radius, 30) / 6, 1)
        occupied = [*taken, *(other.box for other in order[:60] if other is not node)]
        sides = _sides(node.x, node.y, node.radius, size)
        level, chosen = 1, sides[0]
        for side in sides:
            box = _box(*side, size, node.name)
            inside = box[0] > 2 and box[2] < WIDTH - 2 and box[1] > 2 and box[3] < HEIGHT - 2
            if inside and not any(_cross(box, other) for other in occupied):
                level, chosen = 0, side
                taken.append(box)
                break
        x, y, anchor = chosen
        node.label = Label(round(x, 1), round(y, 1), anchor, size, level)


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


def _cross(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _lines(edges: list[tuple[int, int, float]], strong: set[tuple[int, int]]) -> list[Edge]:
    most = max((weight for _, _, weight in edges), default=1.0)
    return [
        Edge(a, b, round(0.8 + 4.2 * weight / most, 2), weight, (a, b) in strong)
        for a, b, weight in sorted(edges, key=lambda edge: edge[2])
    ]


def _communities(nodes: list[Node]) -> list[tuple[int, str, int, str]]:
    """Return (number, colour, members, strongest topics) of each community."""
    found = []
    for community, members in _members(nodes).items():
        strongest = sorted(members, key=lambda node: -node.centrality)[:3]
        found.append((community, members[0].colour, len(members), ", ".join(node.name for node in strongest)))
    return found
