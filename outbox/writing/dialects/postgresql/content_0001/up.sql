CREATE TABLE contents (
    id text NOT NULL PRIMARY KEY,
    title text NOT NULL,
    source text NOT NULL,
    media_type text NOT NULL,
    sha256 text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT contents_has_id CHECK (id <> ''),
    CONSTRAINT contents_sha256_is_hex CHECK (length(sha256) = 64)
);

CREATE TABLE extractions (
    id uuid NOT NULL PRIMARY KEY DEFAULT gen_random_uuid(),
    content_id text NOT NULL REFERENCES contents (id),
    topics jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT extractions_of_content UNIQUE (id, content_id),
    CONSTRAINT extractions_topics_is_array CHECK (jsonb_typeof(topics) = 'array')
);

CREATE INDEX extractions_latest ON extractions (content_id, created_at);

CREATE TABLE topic_graphs (
    id uuid NOT NULL PRIMARY KEY DEFAULT gen_random_uuid(),
    content_id text NOT NULL REFERENCES contents (id),
    extraction_id uuid NOT NULL,
    type text NOT NULL,
    graph jsonb NOT NULL,
    node_count integer NOT NULL,
    edge_count integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (extraction_id, content_id) REFERENCES extractions (id, content_id),
    CONSTRAINT topic_graphs_has_type CHECK (type <> ''),
    CONSTRAINT topic_graphs_counts_agree
        CHECK (node_count >= 0 AND edge_count BETWEEN 0 AND node_count * (node_count - 1) / 2),
    CONSTRAINT topic_graphs_graph_is_object CHECK (jsonb_typeof(graph) = 'object')
);

CREATE UNIQUE INDEX topic_graphs_one_baseline ON topic_graphs (content_id) WHERE type = 'BASELINE';
