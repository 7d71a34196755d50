"""The baseline graph: pure, deterministic, and sensible at the edges."""

import json
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from listeners.graph import MAX_NODES, BaselineGraph, Topic, build_baseline, parse_topics

topics = st.lists(
    st.builds(
        Topic,
        topic=st.text(min_size=1, max_size=8),
        weight=st.floats(0, 1),
        sentences=st.frozensets(st.integers(0, 12), max_size=6),
    ),
    max_size=20,
)


def graph_of(**sentences: list[int]) -> BaselineGraph:
    """Return topics by name, the first the strongest, each with the sentences in which it occurs."""
    return build_baseline(
        Topic(topic=name, weight=1 - index / 100, sentences=frozenset(positions))
        for index, (name, positions) in enumerate(sentences.items())
    )


def test_no_topics_make_an_empty_graph() -> None:
    assert build_baseline([]) == BaselineGraph(nodes=[], edges=[])


def test_a_single_topic_is_its_own_community_and_all_the_centrality() -> None:
    graph = graph_of(relay=[0, 1])

    assert graph.nodes == [{"id": "relay", "weight": 1.0, "centrality": 1.0, "community": 0}]
    assert graph.edges == []


def test_an_edge_weighs_as_many_sentences_as_two_topics_share() -> None:
    graph = graph_of(relay=[0, 1, 2], outbox=[1, 2, 5], inbox=[9])

    assert graph.edges == [{"source": "relay", "target": "outbox", "weight": 2}]


def test_the_topic_in_the_middle_is_the_most_central() -> None:
    graph = graph_of(left=[0], middle=[0, 1], right=[1])

    central = max(graph.nodes, key=lambda node: node["centrality"])
    assert central["id"] == "middle"


def test_groups_that_never_meet_are_different_communities_the_larger_first() -> None:
    graph = graph_of(sun=[0], moon=[0], salt=[1, 2], pepper=[1, 2], oil=[1, 2])

    community = {node["id"]: node["community"] for node in graph.nodes}
    assert community == {"salt": 0, "pepper": 0, "oil": 0, "sun": 1, "moon": 1}


def test_a_topic_named_twice_is_one_node_with_the_sentences_of_both() -> None:
    graph = build_baseline(
        [
            Topic(topic="relay", weight=0.5, sentences=frozenset({0})),
            Topic(topic="relay", weight=0.9, sentences=frozenset({1})),
            Topic(topic="shard", weight=0.1, sentences=frozenset({0, 1})),
        ]
    )

    assert [(node["id"], node["weight"]) for node in graph.nodes] == [("relay", 0.9), ("shard", 0.1)]
    assert graph.edges[0]["weight"] == 2


def test_a_flood_of_topics_keeps_the_strongest() -> None:
    graph = build_baseline(Topic(topic=f"t{n:04}", weight=1 / (n + 1)) for n in range(MAX_NODES + 100))

    assert len(graph.nodes) == MAX_NODES
    assert graph.nodes[-1]["id"] == f"t{MAX_NODES - 1:04}"


@settings(max_examples=30)
@given(topics)
def test_every_graph_is_valid_json_and_its_numbers_agree(found: list[Topic]) -> None:
    graph = build_baseline(found)

    assert json.loads(json.dumps(graph.as_json(), allow_nan=False)) == graph.as_json()
    names = [node["id"] for node in graph.nodes]
    assert sorted(names) == sorted({topic.topic for topic in found})
    assert all(a["weight"] >= b["weight"] for a, b in pairwise(graph.nodes))
    assert len(graph.edges) <= len(names) * (len(names) - 1) // 2
    assert all(edge["source"] != edge["target"] and edge["weight"] > 0 for edge in graph.edges)
    assert not found or sum(node["centrality"] for node in graph.nodes) == pytest.approx(1, abs=1e-4)


@given(topics)
def test_the_order_of_the_topics_does_not_matter(found: list[Topic]) -> None:
    assert build_baseline(found) == build_baseline(list(reversed(found)))


def test_another_process_with_another_hash_seed_builds_the_same_graph() -> None:
    program = (
        "from listeners.graph import *; import json;"
        "print(json.dumps(build_baseline(Topic(topic=f't{n}', weight=n, sentences=frozenset({n % 5, n % 3, n % 7}))"
        " for n in range(40)).as_json()))"
    )
    command = [sys.executable, "-c", program]
    there = subprocess.run(command, env={"PYTHONHASHSEED": "1"}, capture_output=True, check=True, text=True).stdout
    topics = (Topic(topic=f"t{n}", weight=n, sentences=frozenset({n % 5, n % 3, n % 7})) for n in range(40))
    assert json.loads(there) == build_baseline(topics).as_json()


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "relay",
        {"topic": "relay"},
        [{"topic": ""}],
        [{"topic": "relay"}],
        [{"topic": "relay", "weight": "heavy"}],
        [{"topic": "relay", "weight": -1}],
        [{"topic": "relay", "weight": float("nan")}],
        [{"topic": "relay", "weight": 1, "sentences": "all"}],
    ],
)
def test_topics_that_are_not_topics_are_refused(raw: object) -> None:
    with pytest.raises(ValidationError):
        parse_topics(raw)


def test_topics_without_sentences_are_nodes_without_edges() -> None:
    graph = build_baseline(parse_topics([{"topic": "a", "weight": 1}, {"topic": "b", "weight": 1, "extra": True}]))

    assert [node["id"] for node in graph.nodes] == ["a", "b"]
    assert graph.edges == []
