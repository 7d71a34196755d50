"""The baseline listener and the reference worker, on both databases: one baseline per content in every case."""

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.orm import Session
from support.databases import Database
from support.waiting import eventually

from listeners.baseline import on_extraction_completed
from listeners.content import PAGE_SIZE, missing_baselines
from listeners.tables import BASELINE, Content, ContentBase, Extraction, TopicGraph
from outbox import Message, Reject, emit, once
from outbox.errors import SchemaError
from outbox_demo.documents import Document
from outbox_demo.worker import Extracted, ExtractionCompleted, extract
from relay.databases import migrations

TOPICS = [
    {"topic": "relay", "weight": 1.0, "sentences": [0, 1]},
    {"topic": "outbox", "weight": 0.5, "sentences": [1]},
]


@pytest.fixture
def engine(database: Database) -> sa.Engine:
    """An engine that enforces foreign keys on SQLite too."""
    engine = database.sync_engine()
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _foreign_keys)
    return engine


def _foreign_keys(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON").close()


def message(data: object, message_id: str = "0197a2b4-0000-7000-8000-000000000001") -> Message:
    at = "2026-01-01 10:00:00+00"
    return Message(message_id, "extraction.completed", "outbox", None, None, json.dumps(data), "{}", at)


def add_content(session: Session, content_id: str, topics: object = TOPICS) -> None:
    session.add(Content(id=content_id, title="t", source="s", media_type="text/plain", sha256="0" * 64))
    session.flush()
    if topics is not None:
        session.add(Extraction(content_id=content_id, topics=topics))


def save_content(engine: sa.Engine, content_id: str = "c-1", topics: object = TOPICS) -> None:
    with Session(engine) as session, session.begin():
        add_content(session, content_id, topics)


def save_graph(engine: sa.Engine, **columns: Any) -> None:
    """Save a valid graph of c-1, except for what `columns` change."""
    with Session(engine) as session, session.begin():
        extraction_id = session.scalars(sa.select(Extraction.id).where(Extraction.content_id == "c-1")).one()
        values = {"content_id": "c-1", "type": BASELINE, "graph": {}, "node_count": 2, "edge_count": 1, **columns}
        session.add(TopicGraph(extraction_id=extraction_id, **values))


def listen(engine: sa.Engine, data: object) -> None:
    with Session(engine) as session, session.begin():
        on_extraction_completed(message(data), session)


def baselines(database: Database, content_id: str = "c-1") -> list[sa.Row[Any]]:
    """Return the result of the guide's query, as printed."""
    return database.rows(f"SELECT * FROM topic_graphs WHERE type = 'BASELINE' AND content_id = '{content_id}'")


def document(text: str = "A relay reads the outbox. The relay delivers.", content_id: str = "note-1") -> Document:
    return Document(content_id, "Note", "/note.txt", "text/plain", text)


def test_an_extraction_becomes_a_baseline_that_the_guides_query_finds(database: Database, engine: sa.Engine) -> None:
    save_content(engine)

    listen(engine, {"contentId": "c-1"})

    [row] = baselines(database)
    assert (row.node_count, row.edge_count) == (2, 1)
    with Session(engine) as session:
        graph = session.scalars(sa.select(TopicGraph)).one()
        assert [node["id"] for node in graph.graph["nodes"]] == ["relay", "outbox"]
        assert graph.graph["edges"] == [{"source": "relay", "target": "outbox", "weight": 1}]
        assert datetime.now(UTC) - graph.created_at < timedelta(minutes=1)


def test_it_logs_the_guides_lines(engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    save_content(engine)

    with caplog.at_level(logging.INFO, "ContentBaselineListener"):
        listen(engine, {"contentId": "c-1"})
        listen(engine, {"contentId": "c-1"})

    assert {record.name for record in caplog.records} == {"ContentBaselineListener"}
    assert caplog.messages == [
        "Extraction completed for content: c-1",
        "Auto-building baseline for content: c-1",
        "Baseline auto-build complete for c-1",
        "Extraction completed for content: c-1",
        "Baseline already there for c-1",
    ]


def test_a_content_id_cannot_forge_a_log_line(engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    forged = "c-1\nBaseline auto-build complete for c-2\u2028\x1b[2J"

    with caplog.at_level(logging.INFO), pytest.raises(Reject) as rejected:
        listen(engine, {"contentId": forged})

    for text in [*caplog.messages, str(rejected.value)]:
        assert text.isprintable()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({}, "no contentId"),
        ({"contentId": None}, "no contentId"),
        ([], "no contentId"),
        ("c-1", "no contentId"),
        ({"contentId": 7}, "must be a string, not int"),
        ({"contentId": ["c-1"]}, "must be a string, not list"),
        ({"contentId": " "}, "cannot be the id"),
        ({"contentId": "c\0"}, "cannot be the id"),
        ({"contentId": "c\ud800"}, "cannot be the id"),
        ({"contentId": "c-9"}, "unknown content: 'c-9'"),
        ({"contentId": "bare"}, "'bare' has no extraction"),
        ({"contentId": "odd"}, "cannot be read: topics.0.weight"),
    ],
)
def test_what_can_never_succeed_is_rejected_with_the_reason(engine: sa.Engine, data: object, reason: str) -> None:
    save_content(engine, "bare", None)
    save_content(engine, "odd", [{"topic": "relay"}])

    with pytest.raises(Reject, match=reason):
        listen(engine, data)


def test_the_latest_extraction_counts(database: Database, engine: sa.Engine) -> None:
    save_content(engine)
    with Session(engine) as session, session.begin():
        session.add(Extraction(content_id="c-1", topics=TOPICS[:1], created_at=datetime.now(UTC) + timedelta(hours=1)))

    listen(engine, {"contentId": "c-1"})

    assert baselines(database)[0].node_count == 1


def test_an_extraction_without_topics_makes_an_empty_baseline(database: Database, engine: sa.Engine) -> None:
    save_content(engine, topics=[])

    listen(engine, {"contentId": "c-1"})

    assert baselines(database)[0].node_count == 0


def test_nothing_stays_when_the_caller_rolls_back(database: Database, engine: sa.Engine) -> None:
    save_content(engine)

    with Session(engine) as session:
        assert once(session, "baseline", message({}).id)
        on_extraction_completed(message({"contentId": "c-1"}), session)
        session.rollback()

    assert baselines(database) == []
    assert database.scalar("SELECT count(*) FROM inbox_message") == 0


def test_many_at_once_build_one_baseline(database: Database, engine: sa.Engine) -> None:
    save_content(engine)
    start = threading.Barrier(8)

    def deliver(_: int) -> None:
        with Session(engine) as session, session.begin():
            session.connection()
            start.wait()
            on_extraction_completed(message({"contentId": "c-1"}), session)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(deliver, range(8)))

    assert len(baselines(database)) == 1


def test_a_caller_waits_for_another_that_has_not_committed_and_finds_the_baseline_there(
    postgres_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    engine = postgres_database.engine
    save_content(engine)

    with ThreadPoolExecutor(1) as threads, Session(engine) as first:
        on_extraction_completed(message({"contentId": "c-1"}), first)
        with caplog.at_level(logging.INFO):
            second = threads.submit(listen, engine, {"contentId": "c-1"})
            eventually(lambda: postgres_database.scalar("SELECT count(*) FROM pg_locks WHERE NOT granted"))
            first.commit()
            second.result(timeout=30)

    assert caplog.messages[-1] == "Baseline already there for c-1"
    assert len(baselines(postgres_database)) == 1


def test_the_worker_commits_result_and_message_together(database: Database, engine: sa.Engine) -> None:
    found = extract(engine, document())

    [row] = database.rows("SELECT id, type, ordering_key, data FROM outbox_message")
    data = json.loads(row.data) if isinstance(row.data, str) else row.data
    assert (str(row.id), row.type, row.ordering_key) == (found.message_id, "extraction.completed", "note-1")
    assert data == {"contentId": "note-1"}
    with Session(engine) as session:
        assert len(session.scalars(sa.select(Extraction)).one().topics) == len(found.topics) > 0


def test_the_listener_builds_what_the_worker_emitted(database: Database, engine: sa.Engine) -> None:
    found = extract(engine, document())

    listen(engine, ExtractionCompleted(content_id="note-1").model_dump(by_alias=True))

    assert baselines(database, "note-1")[0].node_count == len(found.topics)


def test_a_known_text_is_left_alone_and_a_changed_one_extracted_again(database: Database, engine: sa.Engine) -> None:
    first = extract(engine, document())
    again = extract(engine, document())
    database.execute("UPDATE contents SET created_at = '2026-01-01 10:00:00', updated_at = '2026-01-01 10:00:00'")
    changed = extract(engine, document("A shard is owned by one relay. A shard is a slice."))

    assert again == Extracted(first.topics, None)
    assert changed.message_id is not None
    assert database.scalar("SELECT count(*) FROM outbox_message") == 2
    assert database.scalar("SELECT count(*) FROM extractions") == 2
    with Session(engine) as session:
        content = session.get_one(Content, "note-1")
        assert content.updated_at > content.created_at


def test_a_content_that_another_process_stored_is_extracted_too(database: Database, engine: sa.Engine) -> None:
    with Session(engine) as session, session.begin():
        values = {"title": "t", "source": "s", "media_type": "m", "sha256": document().sha256}
        session.add(Content(id="note-1", **values))

    assert extract(engine, document()).message_id is not None
    assert extract(engine, document()).message_id is None


def test_workers_that_meet_over_a_document_extract_it_once(database: Database, engine: sa.Engine) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: extract(engine, document()), range(4)))

    assert sum(each.message_id is not None for each in found) == 1
    assert database.scalar("SELECT count(*) FROM extractions") == 1
    assert database.scalar("SELECT count(*) FROM outbox_message") == 1


def test_a_worker_that_fails_after_emitting_leaves_nothing(database: Database, engine: sa.Engine) -> None:
    def work() -> None:
        with Session(engine) as session, session.begin():
            add_content(session, "c-1")
            emit(session, ExtractionCompleted(content_id="c-1"), ordering_key="c-1")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        work()

    for table in ("contents", "extractions", "outbox_message"):
        assert database.scalar(f"SELECT count(*) FROM {table}") == 0


def test_missing_baselines_are_listed_page_by_page_while_the_caller_commits(engine: sa.Engine) -> None:
    ids = [f"c-{number:05}" for number in range(PAGE_SIZE + 20)]
    with Session(engine) as session, session.begin():
        for content_id in ids:
            add_content(session, content_id)
        add_content(session, "bare", None)
    listen(engine, {"contentId": ids[3]})

    with Session(engine) as session:
        found = []
        for content_id in missing_baselines(session):
            found.append(content_id)
            session.commit()

    assert sorted(found) == sorted({*ids} - {ids[3]})


def test_another_graph_is_no_baseline_and_does_not_get_in_its_way(database: Database, engine: sa.Engine) -> None:
    save_content(engine)
    for _ in range(2):
        save_graph(engine, type="EXPERT")

    with Session(engine) as session:
        assert list(missing_baselines(session)) == ["c-1"]
    listen(engine, {"contentId": "c-1"})
    assert len(baselines(database)) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": ""},
        {"node_count": -1},
        {"edge_count": -1},
        {"node_count": 2, "edge_count": 2},
        {"graph": []},
        {"graph": None},
        {"content_id": "c-2"},
    ],
)
def test_the_database_refuses_a_graph_that_cannot_be(engine: sa.Engine, wrong: dict[str, Any]) -> None:
    save_content(engine)
    save_content(engine, "c-2")

    with pytest.raises(sa.exc.IntegrityError):
        save_graph(engine, **wrong)


def test_a_second_baseline_is_refused_by_the_database_itself(engine: sa.Engine) -> None:
    save_content(engine)
    listen(engine, {"contentId": "c-1"})

    with pytest.raises(sa.exc.IntegrityError):
        save_graph(engine)


def test_rows_inserted_by_plain_sql_get_their_ids_and_times(database: Database, engine: sa.Engine) -> None:
    database.execute(
        "INSERT INTO contents (id, title, source, media_type, sha256) VALUES ('c-1', 't', 's', 'm', :sha)", sha="0" * 64
    )
    database.execute(
        """INSERT INTO extractions (content_id, topics)
           VALUES ('c-1', '[{"topic": "relay", "weight": 1, "sentences": [0]}]')"""
    )

    listen(engine, {"contentId": "c-1"})

    assert baselines(database)[0].node_count == 1
    with Session(engine) as session:
        extraction = session.scalars(sa.select(Extraction)).one()
        assert abs(datetime.now(UTC) - extraction.created_at) < timedelta(minutes=1)
        assert extraction.id.version == 4 or database.kind == "sqlite"


def test_models_and_migrations_agree_up_down_and_up_again(empty_database: Database) -> None:
    for _ in range(2):
        migrations.upgrade(empty_database.url, only="content")
        with empty_database.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"include_object": _is_content})
            assert compare_metadata(context, ContentBase.metadata) == []
        empty_database.downgrade("content")
        assert not set(sa.inspect(empty_database.engine).get_table_names()) & set(ContentBase.metadata.tables)


def test_tables_of_the_host_are_refused_by_name_before_anything_is_created(empty_database: Database) -> None:
    with empty_database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE extractions (mine integer)")

    with pytest.raises(SchemaError, match=r"extractions.* already.*outbox db upgrade --only outbox"):
        migrations.upgrade(empty_database.url)

    assert sa.inspect(empty_database.engine).get_table_names() == ["extractions"]
    migrations.upgrade(empty_database.url, only="outbox")
    assert sa.inspect(empty_database.engine).has_table("outbox_message")


def _is_content(_object: object, name: str | None, kind: str, reflected: bool, _compare_to: object) -> bool:
    return not (kind == "table" and reflected and name not in ContentBase.metadata.tables)
