CREATE TABLE contents (
    id text NOT NULL PRIMARY KEY,
    title text NOT NULL,
    source text NOT NULL,
    media_type text NOT NULL,
    sha256 text NOT NULL,
    created_at DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    updated_at DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    CONSTRAINT contents_has_id CHECK (id <> ''),
    CONSTRAINT contents_sha256_is_hex CHECK (length(sha256) = 64)
);

CREATE TABLE extractions (
    id CHAR(32) NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    content_id text NOT NULL REFERENCES contents (id),
    topics JSON NOT NULL,
    created_at DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    CONSTRAINT extractions_of_content UNIQUE (id, content_id),
    CONSTRAINT extractions_topics_is_array CHECK (json_type(topics) = 'array')
);

CREATE INDEX extractions_latest ON extractions (content_id, created_at);

CREATE TABLE topic_graphs (
    id CHAR(32) NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))),
    content_id text NOT NULL REFERENCES contents (id),
    extraction_id CHAR(32) NOT NULL,
    type text NOT NULL,
    graph JSON NOT NULL,
    node_count integer NOT NULL,
    edge_count integer NOT NULL,
    created_at DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    FOREIGN KEY (extraction_id, content_id) REFERENCES extractions (id, content_id),
    CONSTRAINT topic_graphs_has_type CHECK (type <> ''),
    CONSTRAINT topic_graphs_counts_agree
        CHECK (node_count >= 0 AND edge_count BETWEEN 0 AND node_count * (node_count - 1) / 2),
    CONSTRAINT topic_graphs_graph_is_object CHECK (json_type(graph) = 'object')
);

CREATE UNIQUE INDEX topic_graphs_one_baseline ON topic_graphs (content_id) WHERE type = 'BASELINE';
