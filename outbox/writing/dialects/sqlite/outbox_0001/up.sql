-- A column declared JSON turns the text 1 into a number. The CHECK of typeof refuses that, because a body must be text.
-- One relay reads the whole file, so the shard does not divide the work: any distribution is sufficient.
CREATE TABLE outbox_message (
    id VARCHAR(36) NOT NULL UNIQUE,
    position INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL CHECK (position > 0),
    type TEXT NOT NULL,
    source TEXT NOT NULL CHECK (source <> '' AND typeof(source) = 'text'),
    subject TEXT CHECK (typeof(subject) IN ('text', 'null')),
    ordering_key TEXT CHECK (length(ordering_key) BETWEEN 1 AND 255 AND typeof(ordering_key) IN ('text', 'null')),
    data JSON NOT NULL CHECK (json_type(data) IN ('object', 'array') AND typeof(data) = 'text'),
    headers JSON NOT NULL DEFAULT '{}' CHECK (json_type(headers) = 'object' AND typeof(headers) = 'text'),
    created_at DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    due_at DATETIME,
    expires_at DATETIME,
    state TEXT NOT NULL DEFAULT 'ready' CHECK (state IN ('ready', 'scheduled', 'held', 'unrouted')),
    generation INTEGER NOT NULL DEFAULT 0,
    txid INTEGER NOT NULL DEFAULT 0 CHECK (txid BETWEEN 0 AND 1 << 62),
    shard SMALLINT GENERATED ALWAYS AS
        ((length(coalesce(ordering_key, id)) * 31 + unicode(substr(' ' || coalesce(ordering_key, id), -1)) * 7
          + unicode(coalesce(ordering_key, id) || ' ') * 13) & 63) VIRTUAL NOT NULL,
    size INTEGER GENERATED ALWAYS AS (length(CAST(data AS BLOB))) VIRTUAL NOT NULL,
    CONSTRAINT outbox_message_id_is_as_uuids_are_written CHECK (length(id) = 36 AND id = lower(id)),
    CONSTRAINT outbox_message_type_is_words_and_dots CHECK
        (length(type) <= 255 AND type GLOB '[A-Za-z0-9]*' AND type NOT GLOB '*[^A-Za-z0-9._-]*'
         AND instr(type || '.', '..') = 0 AND instr(type, char(0)) = 0),
    CONSTRAINT outbox_message_created_is_date CHECK
        (datetime(created_at, '+0 days') IS substr(created_at, 1, 19) AND substr(created_at, 1, 4) > '0001'
         AND created_at NOT GLOB '*z'),
    CONSTRAINT outbox_message_due_is_date CHECK (due_at IS NULL OR
date(substr(due_at, 1, 10), '+0 days') IS substr(due_at, 1, 10) AND due_at GLOB '* *'
AND time(substr(due_at, 12, 8)) IS substr(due_at, 12, 8) AND substr(due_at, 1, 4) > '0001' AND substr(due_at, 12, 2) < '24'
AND (length(due_at) = 19 OR substr(due_at, 20) GLOB '.[0-9]*' AND substr(due_at, 21) NOT GLOB '*[^0-9]*')),
    CONSTRAINT outbox_message_expires_is_date CHECK
        (expires_at IS NULL OR
date(substr(expires_at, 1, 10), '+0 days') IS substr(expires_at, 1, 10) AND expires_at GLOB '* *'
AND time(substr(expires_at, 12, 8)) IS substr(expires_at, 12, 8) AND substr(expires_at, 1, 4) > '0001'
AND substr(expires_at, 12, 2) < '24'
AND (length(expires_at) = 19 OR substr(expires_at, 20) GLOB '.[0-9]*' AND substr(expires_at, 21) NOT GLOB '*[^0-9]*')),
    CONSTRAINT outbox_message_due_is_scheduled CHECK
        ((state = 'ready') <= (due_at IS NULL) AND (state = 'scheduled') <= (due_at IS NOT NULL))
);

CREATE INDEX outbox_message_ready ON outbox_message (position) WHERE state = 'ready';

CREATE INDEX outbox_message_txid ON outbox_message (txid) WHERE txid > 0;

CREATE INDEX outbox_message_due ON outbox_message (due_at, position) WHERE state = 'scheduled';

CREATE INDEX outbox_message_unrouted ON outbox_message (id) WHERE state = 'unrouted';

CREATE TABLE outbox_delivery (
    message_id VARCHAR(36) NOT NULL,
    destination TEXT NOT NULL,
    shard SMALLINT NOT NULL,
    position INTEGER NOT NULL,
    ordering_key TEXT,
    state TEXT NOT NULL CHECK (state IN ('parked', 'blocked', 'retry', 'dead', 'delivered', 'discarded', 'cancelled', 'expired')),
    generation INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    due_at DATETIME,
    first_failed_at DATETIME,
    reason TEXT,
    fingerprint TEXT,
    log JSON NOT NULL DEFAULT '[]',
    changed_at DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    txid INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (message_id, destination),
    CONSTRAINT outbox_delivery_retry_has_due_at CHECK ((state = 'retry') = (due_at IS NOT NULL)),
    CONSTRAINT outbox_delivery_dead_has_reason CHECK ((state = 'dead') <= (reason IS NOT NULL)),
    CONSTRAINT outbox_delivery_blocked_has_key CHECK ((state = 'blocked') <= (ordering_key IS NOT NULL)),
    CONSTRAINT outbox_delivery_has_dates CHECK (
        datetime(due_at, '+0 days') IS substr(due_at, 1, 19) AND substr(due_at, 1, 4) BETWEEN '0002' AND '9998'
        AND datetime(first_failed_at, '+0 days') IS substr(first_failed_at, 1, 19) AND substr(first_failed_at, 1, 4) BETWEEN '0002' AND '9998'
        AND datetime(changed_at, '+0 days') IS substr(changed_at, 1, 19) AND substr(changed_at, 1, 4) BETWEEN '0002' AND '9998')
);

CREATE INDEX outbox_delivery_parked ON outbox_delivery (destination, position) WHERE state = 'parked';

CREATE INDEX outbox_delivery_key ON outbox_delivery (ordering_key, destination, position)
    WHERE ordering_key IS NOT NULL AND state <> 'delivered';

CREATE INDEX outbox_delivery_retry ON outbox_delivery (due_at, position) WHERE state = 'retry';

CREATE INDEX outbox_delivery_dead ON outbox_delivery (destination, changed_at) WHERE state = 'dead';

CREATE INDEX outbox_delivery_txid ON outbox_delivery (txid) WHERE txid > 0;

CREATE TABLE outbox_history (
    id VARCHAR(36) NOT NULL,
    delivered_at DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    position INTEGER NOT NULL,
    type TEXT NOT NULL,
    source TEXT NOT NULL,
    subject TEXT,
    ordering_key TEXT,
    data JSON NOT NULL,
    headers JSON NOT NULL,
    created_at DATETIME NOT NULL,
    attempts INTEGER NOT NULL,
    registered INTEGER,
    outcome TEXT,
    deliveries JSON
);

CREATE INDEX outbox_history_id ON outbox_history (id);

CREATE INDEX outbox_history_outcome ON outbox_history (outcome, id) WHERE outcome IS NOT NULL;

CREATE INDEX outbox_history_delivered ON outbox_history (delivered_at);

CREATE TABLE outbox_destination (
    name TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    events JSON NOT NULL,
    wanted JSON NOT NULL DEFAULT '[]',
    on_dead TEXT NOT NULL DEFAULT 'block' CHECK (on_dead IN ('block', 'skip')),
    generation INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'healthy' CHECK (state IN ('healthy', 'paused', 'throttled', 'off')),
    reason TEXT,
    note TEXT,
    paused_by TEXT CHECK (paused_by IN ('failure', 'operator')),
    until DATETIME,
    pauses INTEGER NOT NULL DEFAULT 0,
    disputed_at DATETIME,
    resumed_at DATETIME,
    removed_at DATETIME,
    since DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    changed_at DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    CONSTRAINT outbox_destination_paused_has_reason CHECK
        ((state = 'healthy') = (reason IS NULL) AND (state = 'healthy') = (paused_by IS NULL)),
    CONSTRAINT outbox_destination_has_dates CHECK (
        datetime(until, '+0 days') IS substr(until, 1, 19) AND substr(until, 1, 4) BETWEEN '0002' AND '9998'
        AND datetime(disputed_at, '+0 days') IS substr(disputed_at, 1, 19) AND substr(disputed_at, 1, 4) BETWEEN '0002' AND '9998'
        AND datetime(resumed_at, '+0 days') IS substr(resumed_at, 1, 19) AND substr(resumed_at, 1, 4) BETWEEN '0002' AND '9998'
        AND datetime(removed_at, '+0 days') IS substr(removed_at, 1, 19) AND substr(removed_at, 1, 4) BETWEEN '0002' AND '9998'
        AND datetime(since, '+0 days') IS substr(since, 1, 19) AND substr(since, 1, 4) BETWEEN '0002' AND '9998'
        AND datetime(changed_at, '+0 days') IS substr(changed_at, 1, 19) AND substr(changed_at, 1, 4) BETWEEN '0002' AND '9998')
);

CREATE INDEX outbox_destination_generation ON outbox_destination (generation);

CREATE TABLE outbox_relay (
    number INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL,
    backend_pid INTEGER,
    presence INTEGER,
    release TEXT NOT NULL,
    shards JSON NOT NULL DEFAULT '[]',
    wants INTEGER NOT NULL DEFAULT 0,
    started_at DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    last_seen_at DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    CONSTRAINT outbox_relay_has_dates CHECK (
        datetime(started_at, '+0 days') IS substr(started_at, 1, 19) AND substr(started_at, 1, 4) BETWEEN '0002' AND '9998'
        AND datetime(last_seen_at, '+0 days') IS substr(last_seen_at, 1, 19) AND substr(last_seen_at, 1, 4) BETWEEN '0002' AND '9998')
);

CREATE TABLE outbox_shard (
    shard SMALLINT NOT NULL PRIMARY KEY CHECK (shard BETWEEN 0 AND 63),
    dirty BOOLEAN NOT NULL DEFAULT 0,
    owner TEXT,
    relay INTEGER,
    started JSON
);

INSERT INTO outbox_shard (shard)
    WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < 63) SELECT n FROM s;

CREATE TABLE outbox_audit (
    id INTEGER NOT NULL PRIMARY KEY,
    part_of INTEGER,
    at DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    role TEXT,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target JSON NOT NULL,
    count INTEGER NOT NULL,
    reason TEXT
);

CREATE INDEX outbox_audit_part ON outbox_audit (part_of) WHERE part_of IS NOT NULL;

CREATE TABLE outbox_sample (
    at DATETIME NOT NULL,
    relay TEXT NOT NULL,
    span_s DOUBLE NOT NULL CONSTRAINT outbox_sample_spans_time CHECK (span_s > 0),
    facts JSON NOT NULL,
    PRIMARY KEY (at, relay)
);

CREATE TABLE inbox_message (
    listener TEXT NOT NULL,
    message_id TEXT NOT NULL,
    done_at DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    PRIMARY KEY (listener, message_id)
);

CREATE INDEX inbox_message_done ON inbox_message (done_at);

CREATE TABLE outbox_rate (
    destination TEXT NOT NULL PRIMARY KEY,
    rate TEXT,
    arrival_s DOUBLE NOT NULL DEFAULT 0
);

-- Is empty: writers take turns here.
CREATE TABLE outbox_turn (slot SMALLINT NOT NULL PRIMARY KEY);

CREATE TABLE outbox_meta (schema_version INTEGER NOT NULL PRIMARY KEY, oldest_release TEXT NOT NULL);

INSERT INTO outbox_meta VALUES (2, '0.1.0');
