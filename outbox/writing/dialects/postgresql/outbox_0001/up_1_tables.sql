-- ---------------------------------------------------------------- messages
-- Columns of fixed length that are never NULL come first: PostgreSQL then finds a column without reading those before.
-- data and headers are json, not jsonb: the bytes that were emitted are the bytes that are sent.
CREATE TABLE outbox_message (
    id uuid PRIMARY KEY,
    position bigint NOT NULL GENERATED ALWAYS AS IDENTITY (CACHE 1),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    txid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    generation integer NOT NULL DEFAULT 0,
    size integer NOT NULL,
    shard smallint NOT NULL,
    state text NOT NULL DEFAULT 'ready',
    type text NOT NULL,
    source text NOT NULL,
    headers json NOT NULL DEFAULT '{}',
    data json NOT NULL,
    subject text,
    ordering_key text,
    due_at timestamptz,
    expires_at timestamptz
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000,
        autovacuum_vacuum_cost_delay = 1);

CREATE INDEX outbox_message_ready ON outbox_message (shard, position) WHERE state = 'ready';

-- With position and due_at, a read skips new messages that are not late in the index, without reading the table.
CREATE INDEX outbox_message_txid ON outbox_message (txid, position, due_at);

CREATE INDEX outbox_message_due ON outbox_message (shard, due_at, position) WHERE state = 'scheduled';

CREATE INDEX outbox_message_unrouted ON outbox_message (id) WHERE state = 'unrouted';

-- -------------------------------------------------------------- deliveries
-- Only dates that every command and every relay can read: PostgreSQL has others, and infinities.
CREATE TABLE outbox_delivery (
    message_id uuid NOT NULL,
    destination text NOT NULL,
    shard smallint NOT NULL,
    position bigint NOT NULL,
    ordering_key text,
    state text NOT NULL CHECK (state IN ('parked', 'blocked', 'retry', 'dead', 'delivered', 'discarded', 'cancelled', 'expired')),
    generation integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    due_at timestamptz,
    first_failed_at timestamptz,
    reason text,
    fingerprint text,
    log jsonb NOT NULL DEFAULT '[]',
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    txid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (message_id, destination),
    CONSTRAINT outbox_delivery_retry_has_due_at CHECK ((state = 'retry') = (due_at IS NOT NULL)),
    CONSTRAINT outbox_delivery_dead_has_reason CHECK ((state = 'dead') <= (reason IS NOT NULL)),
    CONSTRAINT outbox_delivery_blocked_has_key CHECK ((state = 'blocked') <= (ordering_key IS NOT NULL)),
    CONSTRAINT outbox_delivery_has_dates CHECK (
        due_at BETWEEN '0002-01-01Z' AND '9999-01-01Z'
        AND first_failed_at BETWEEN '0002-01-01Z' AND '9999-01-01Z'
        AND changed_at BETWEEN '0002-01-01Z' AND '9999-01-01Z')
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000,
        autovacuum_vacuum_cost_delay = 1);

CREATE INDEX outbox_delivery_parked ON outbox_delivery (destination, shard, position) WHERE state = 'parked';

CREATE INDEX outbox_delivery_key ON outbox_delivery (ordering_key, destination, position)
    WHERE ordering_key IS NOT NULL AND state <> 'delivered';

CREATE INDEX outbox_delivery_retry ON outbox_delivery (shard, due_at, position) WHERE state = 'retry';

CREATE INDEX outbox_delivery_dead ON outbox_delivery (destination, changed_at) WHERE state = 'dead';

CREATE INDEX outbox_delivery_txid ON outbox_delivery (txid, shard);

-- ----------------------------------------------------------------- history
CREATE TABLE outbox_history (
    id uuid NOT NULL,
    delivered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    position bigint NOT NULL,
    created_at timestamptz NOT NULL,
    attempts integer NOT NULL,
    type text NOT NULL,
    source text NOT NULL,
    headers json NOT NULL,
    data json NOT NULL,
    registered integer,
    subject text,
    ordering_key text,
    outcome text,
    deliveries jsonb
) PARTITION BY RANGE (delivered_at);

-- Not unique: a row gets here only in the statement that takes it out of outbox_message, and uniqueness would cost
-- a quarter of that statement's time.
CREATE INDEX outbox_history_id ON outbox_history (id);

CREATE INDEX outbox_history_outcome ON outbox_history (outcome, id) WHERE outcome IS NOT NULL;

-- ------------------------------------------- registry, relays, audit, inbox
CREATE TABLE outbox_destination (
    name text PRIMARY KEY,
    kind text NOT NULL,
    events jsonb NOT NULL,
    wanted jsonb NOT NULL DEFAULT '[]',
    on_dead text NOT NULL DEFAULT 'block' CHECK (on_dead IN ('block', 'skip')),
    generation integer NOT NULL,
    state text NOT NULL DEFAULT 'healthy' CHECK (state IN ('healthy', 'paused', 'throttled', 'off')),
    reason text,
    note text,
    paused_by text CHECK (paused_by IN ('failure', 'operator')),
    until timestamptz,
    pauses integer NOT NULL DEFAULT 0,
    disputed_at timestamptz,
    resumed_at timestamptz,
    removed_at timestamptz,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT outbox_destination_paused_has_reason CHECK
        ((state = 'healthy') = (reason IS NULL) AND (state = 'healthy') = (paused_by IS NULL)),
    CONSTRAINT outbox_destination_has_dates CHECK (
        until BETWEEN '0002-01-01Z' AND '9999-01-01Z'
        AND disputed_at BETWEEN '0002-01-01Z' AND '9999-01-01Z'
        AND resumed_at BETWEEN '0002-01-01Z' AND '9999-01-01Z'
        AND removed_at BETWEEN '0002-01-01Z' AND '9999-01-01Z'
        AND since BETWEEN '0002-01-01Z' AND '9999-01-01Z'
        AND changed_at BETWEEN '0002-01-01Z' AND '9999-01-01Z')
);

CREATE INDEX outbox_destination_generation ON outbox_destination (generation);

CREATE TABLE outbox_relay (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL,
    backend_pid integer,
    presence integer,
    release text NOT NULL,
    shards jsonb NOT NULL DEFAULT '[]',
    wants integer NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT outbox_relay_has_dates CHECK (
        started_at BETWEEN '0002-01-01Z' AND '9999-01-01Z'
        AND last_seen_at BETWEEN '0002-01-01Z' AND '9999-01-01Z')
) WITH (fillfactor = 50);

CREATE TABLE outbox_shard (
    shard smallint PRIMARY KEY CHECK (shard BETWEEN 0 AND 63),
    dirty boolean NOT NULL DEFAULT false,
    owner text,
    relay bigint,
    started jsonb
) WITH (fillfactor = 50);

INSERT INTO outbox_shard (shard) SELECT generate_series(0, 63);

CREATE TABLE outbox_audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    part_of bigint,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    role text DEFAULT session_user,
    actor text NOT NULL,
    action text NOT NULL,
    target jsonb NOT NULL,
    count bigint NOT NULL,
    reason text
);

CREATE INDEX outbox_audit_part ON outbox_audit (part_of) WHERE part_of IS NOT NULL;

CREATE TABLE outbox_sample (
    at timestamptz NOT NULL,
    relay text NOT NULL,
    span_s double precision NOT NULL CONSTRAINT outbox_sample_spans_time CHECK (span_s > 0),
    facts jsonb NOT NULL,
    PRIMARY KEY (at, relay)
);

CREATE TABLE inbox_message (
    listener text NOT NULL,
    message_id text NOT NULL,
    done_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (listener, message_id)
);

CREATE INDEX inbox_message_done ON inbox_message (done_at);

-- The budget of a destination's rate limit, which all relays share (relay/decide/rate.py).
CREATE TABLE outbox_rate (
    destination text PRIMARY KEY,
    rate text,
    arrival_s double precision NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- A transaction that emits with strict_order locks the row of its key's slot until it ends (docs/decisions/0015).
CREATE TABLE outbox_turn (slot smallint PRIMARY KEY);

INSERT INTO outbox_turn SELECT generate_series(0, 1023);

CREATE TABLE outbox_meta (schema_version integer PRIMARY KEY, oldest_release text NOT NULL);

INSERT INTO outbox_meta VALUES (2, '0.1.0');

-- ----------------------------------------------------------------- wake-up
-- 0: never notify. 1: every relay is awake. 2: a relay sleeps. It is a sequence because every snapshot sees its
-- current value, and it leaves no dead rows behind.
CREATE SEQUENCE outbox_wake MINVALUE 0 START 1;

-- A producer reads whether a relay sleeps. The value says nothing else, and only relays may change it.
GRANT SELECT ON SEQUENCE outbox_wake TO PUBLIC;
