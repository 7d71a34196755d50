"""The outbox: messages, deliveries, history, registry, relays, inbox, and what wakes the relays up.

Plain SQL per database, so that what runs is what you read. Everything is created unqualified in the first schema of the
`search_path`, which the caller sets; functions pin that path (`SET search_path FROM CURRENT`). What runs with somebody
else's rights names PostgreSQL's functions in full, with arguments of the very types that they take: in a schema where
many may create, a function that fits better would be called instead.
"""

from __future__ import annotations

from alembic import op

revision = "outbox_0001"
down_revision = None
branch_labels = ("outbox",)
depends_on = None

STATES = "'ready', 'scheduled', 'held', 'unrouted'"
DELIVERY_STATES = "'parked', 'blocked', 'retry', 'dead', 'delivered', 'discarded', 'cancelled'"
DESTINATION_STATES = "'healthy', 'paused', 'throttled', 'off'"
# With a suffix, where others had taken its name.
IS_THE_DAYS = "c.relname::text ~ ('^' || name || '(_[0-9a-f]{8})?$')"
# Made by the owner of `history`, and nothing of others hangs on it.
IS_OUR_TABLE = """
    c.relkind = 'r' AND c.relowner = history.relowner AND NOT c.relrowsecurity
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = c.oid)
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class = c.oid)
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy AS p WHERE p.polrelid = c.oid)
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE c.oid IN (i.inhrelid, i.inhparent))"""
SHARD = "pg_catalog.hashtextextended(coalesce(NEW.ordering_key, {id}::text), 0::bigint) & 63::bigint"
FIRST, LAST = "'0002-01-01Z'", "'9999-01-01Z'"  # the dates that Python has

# Whoever writes SQL is not checked by `emit`, so the tables refuse what could not be told apart, shown or read back.
# The rule for types is that of outbox/event.py. Headers are made fit for their wire when they are sent: to look at each
# of them here would cost every statement 4 µs. On PostgreSQL a trigger does it, and fills in `shard` and `size`:
# CHECKs and generated columns are read anew for every statement, which was half of an INSERT (docs/decisions/0013).
TYPE = r"'^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$'"

POSTGRES = [
    # ---------------------------------------------------------------- messages
    """
    CREATE TABLE outbox_message (
        id uuid PRIMARY KEY,
        position bigint NOT NULL GENERATED ALWAYS AS IDENTITY (CACHE 1),
        type text NOT NULL,
        source text NOT NULL,
        subject text,
        ordering_key text,
        data jsonb NOT NULL,
        headers jsonb NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        due_at timestamptz,
        expires_at timestamptz,
        state text NOT NULL DEFAULT 'ready',
        generation integer NOT NULL DEFAULT 0,
        txid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        shard smallint NOT NULL,
        size integer NOT NULL
    ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
            autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000,
            autovacuum_vacuum_cost_delay = 1)
    """,
    "CREATE INDEX outbox_message_ready ON outbox_message (shard, position) WHERE state = 'ready'",
    "CREATE INDEX outbox_message_txid ON outbox_message (txid, shard)",
    "CREATE INDEX outbox_message_due ON outbox_message (shard, due_at, position) WHERE state = 'scheduled'",
    "CREATE INDEX outbox_message_unrouted ON outbox_message (position) WHERE state = 'unrouted'",
    # What is missing is NULL here, which no WHEN takes for a fault: NOT NULL refuses it afterwards, by its column. The
    # remedies have a branch of their own, which is hardly ever taken: every statement pays for the first CASE. A relay
    # that sets a message aside is not refused for a fault that was there before, from a time without triggers. What is
    # to be read gets the id of its transaction: by that it is found, wherever the cursors are.
    f"""
    CREATE FUNCTION outbox_message_checked() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        fault text := CASE
            WHEN pg_catalog.length(NEW.type) > 255 OR NEW.type !~ {TYPE} THEN 'type'
            WHEN NEW.source = '' THEN 'source'
            WHEN pg_catalog.length(NEW.ordering_key) NOT BETWEEN 1 AND 255 THEN 'ordering_key'
            WHEN pg_catalog.jsonb_typeof(NEW.data) NOT IN ('object', 'array') THEN 'data'
            WHEN pg_catalog.jsonb_typeof(NEW.headers) <> 'object' THEN 'headers'
            WHEN NEW.state NOT IN ({STATES}) THEN 'state'
            WHEN NEW.state = 'ready' AND NEW.due_at IS NOT NULL THEN 'due_at'
            WHEN NEW.state = 'scheduled' AND NEW.due_at IS NULL THEN 'due_at'
            WHEN NEW.due_at NOT BETWEEN {FIRST} AND {LAST} THEN 'due_at'
            WHEN NEW.expires_at NOT BETWEEN {FIRST} AND {LAST} THEN 'expires_at'
            WHEN NEW.created_at NOT BETWEEN {FIRST} AND {LAST} THEN 'created_at'
            WHEN NEW.position <= 0 THEN 'position'
        END;
    BEGIN
        IF fault IS NOT NULL THEN
            IF NEW.state NOT IN ('held', 'unrouted')
               OR pg_catalog.to_jsonb(NEW) -> fault IS DISTINCT FROM pg_catalog.to_jsonb(OLD) -> fault THEN
                RAISE check_violation USING TABLE = TG_TABLE_NAME, COLUMN = fault, MESSAGE = pg_catalog.format(
                    'outbox_message.%s %L: write %s',
                    fault, pg_catalog.left(pg_catalog.to_jsonb(NEW) ->> fault, 80), CASE fault
                        WHEN 'type' THEN 'words of letters, digits, _ and -, separated by dots, at most 255 characters'
                        WHEN 'source' THEN 'who sends it'
                        WHEN 'ordering_key' THEN '1 to 255 characters, or NULL'
                        WHEN 'data' THEN 'an object or an array, as in {{"value": 1}}'
                        WHEN 'headers' THEN 'an object, as in {{"name": "value"}}'
                        WHEN 'state' THEN 'nothing, or scheduled, together with a due_at'
                        WHEN 'due_at' THEN 'an instant before the year 9999 with the state scheduled, NULL with ready'
                        WHEN 'expires_at' THEN 'an instant before the year 9999, or NULL'
                        WHEN 'created_at' THEN 'nothing, or an instant before the year 9999'
                        WHEN 'position' THEN 'nothing: it is counted'
                    END);
            END IF;
        END IF;
        NEW.shard := {SHARD.format(id="NEW.id")};
        NEW.size := pg_catalog.octet_length(NEW.data::text);
        IF NEW.state IN ('ready', 'scheduled') THEN
            NEW.txid := pg_catalog.pg_current_xact_id();
        ELSIF TG_OP = 'INSERT' AND NOT pg_catalog.has_table_privilege(TG_RELID, 'UPDATE') THEN
            RAISE check_violation USING TABLE = TG_TABLE_NAME, COLUMN = 'state', MESSAGE = pg_catalog.format(
                'outbox_message.state %L: write nothing, or scheduled, together with a due_at', NEW.state);
        END IF;
        RETURN NEW;
    END $$
    """,
    # They fire in the order of their names, and nobody may change what this one has checked.
    """CREATE TRIGGER zz_outbox_message_checked BEFORE INSERT OR UPDATE ON outbox_message
       FOR EACH ROW EXECUTE FUNCTION outbox_message_checked()""",
    # What logical replication applies fires no ordinary trigger, and brings the publisher's transaction ids along. This
    # one fires for it and for nothing else. It refuses nothing: the publisher has checked the row, or taken it without.
    f"""
    CREATE FUNCTION outbox_message_applied() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.shard := {SHARD.format(id="NEW.id")};
        NEW.size := pg_catalog.octet_length(NEW.data::text);
        NEW.txid := pg_catalog.pg_current_xact_id();
        RETURN NEW;
    END $$
    """,
    """CREATE TRIGGER zz_outbox_message_applied BEFORE INSERT OR UPDATE ON outbox_message
       FOR EACH ROW EXECUTE FUNCTION outbox_message_applied()""",
    "ALTER TABLE outbox_message ENABLE REPLICA TRIGGER zz_outbox_message_applied",
    # -------------------------------------------------------------- deliveries
    f"""
    CREATE TABLE outbox_delivery (
        message_id uuid NOT NULL,
        destination text NOT NULL,
        shard smallint NOT NULL,
        position bigint NOT NULL,
        ordering_key text,
        state text NOT NULL CHECK (state IN ({DELIVERY_STATES})),
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
        CONSTRAINT outbox_delivery_blocked_has_key CHECK ((state = 'blocked') <= (ordering_key IS NOT NULL))
    ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
            autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000,
            autovacuum_vacuum_cost_delay = 1)
    """,
    "CREATE INDEX outbox_delivery_parked ON outbox_delivery (destination, shard, position) WHERE state = 'parked'",
    """CREATE INDEX outbox_delivery_key ON outbox_delivery (ordering_key, destination, position)
       WHERE ordering_key IS NOT NULL AND state <> 'delivered'""",
    "CREATE INDEX outbox_delivery_retry ON outbox_delivery (shard, due_at, position) WHERE state = 'retry'",
    "CREATE INDEX outbox_delivery_dead ON outbox_delivery (destination, changed_at) WHERE state = 'dead'",
    "CREATE INDEX outbox_delivery_txid ON outbox_delivery (txid, shard)",
    f"""
    CREATE FUNCTION outbox_delivery_applied() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.shard := {SHARD.format(id="NEW.message_id")};
        NEW.txid := pg_catalog.pg_current_xact_id();
        RETURN NEW;
    END $$
    """,
    """CREATE TRIGGER zz_outbox_delivery_applied BEFORE INSERT OR UPDATE ON outbox_delivery
       FOR EACH ROW EXECUTE FUNCTION outbox_delivery_applied()""",
    "ALTER TABLE outbox_delivery ENABLE REPLICA TRIGGER zz_outbox_delivery_applied",
    # ----------------------------------------------------------------- history
    """
    CREATE TABLE outbox_history (
        id uuid NOT NULL,
        delivered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        position bigint NOT NULL,
        type text NOT NULL,
        source text NOT NULL,
        subject text,
        ordering_key text,
        data jsonb NOT NULL,
        headers jsonb NOT NULL,
        created_at timestamptz NOT NULL,
        attempts integer NOT NULL,
        registered integer,
        outcome text,
        deliveries jsonb
    ) PARTITION BY RANGE (delivered_at)
    """,
    # Not unique: a row gets here only in the statement that takes it out of outbox_message, and uniqueness would cost
    # a quarter of that statement's time.
    "CREATE INDEX outbox_history_id ON outbox_history (id)",
    "CREATE INDEX outbox_history_outcome ON outbox_history (outcome, id) WHERE outcome IS NOT NULL",
    # Created apart, then attached: ATTACH takes SHARE UPDATE EXCLUSIVE on the parent where PARTITION OF would stop
    # every reader. The CHECK spares it the scan. A table of ours that was detached is attached again: nothing can be
    # settled on a day without a partition. A table of others is not, for its triggers would run with our rights: it
    # keeps its name, and the partition gets another, which cannot be guessed. The lock is one that needs a right on
    # the table: any login may hold an advisory lock.
    f"""
    CREATE FUNCTION outbox_add_partition(day date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '5s' AS $$
    DECLARE
        name text := 'outbox_history_' || pg_catalog.to_char(day::timestamp, 'YYYYMMDD');
        lower_bound timestamptz := day::timestamp AT TIME ZONE 'UTC';
        upper_bound timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
        history pg_catalog.pg_class;
        is_ours boolean;
    BEGIN
        LOCK TABLE ONLY outbox_history IN SHARE UPDATE EXCLUSIVE MODE;
        SELECT h.* INTO history FROM pg_catalog.pg_class AS h WHERE h.oid = 'outbox_history'::pg_catalog.regclass;
        IF EXISTS (SELECT FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
                   WHERE i.inhparent = history.oid
                     AND {IS_THE_DAYS}) THEN RETURN; END IF;
        SELECT {IS_OUR_TABLE} INTO is_ours
        FROM pg_catalog.pg_class AS c WHERE c.relnamespace = history.relnamespace AND c.relname::text = name;
        IF is_ours IS NULL THEN
            is_ours := NOT EXISTS (SELECT FROM pg_catalog.pg_type AS t
                                   WHERE t.typnamespace = history.relnamespace AND t.typname::text = name);
        END IF;
        IF NOT is_ours THEN
            name := name || '_' || pg_catalog.left(pg_catalog.md5(pg_catalog.gen_random_uuid()::text), 8);
        END IF;
        EXECUTE pg_catalog.format(
            'CREATE TABLE IF NOT EXISTS %I (LIKE outbox_history INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
                                            CONSTRAINT %I CHECK (delivered_at >= %L AND delivered_at < %L))',
            name, name || '_day', lower_bound, upper_bound);
        IF NOT (SELECT {IS_OUR_TABLE} FROM pg_catalog.pg_class AS c
                WHERE c.relnamespace = history.relnamespace AND c.relname::text = name) THEN
            RAISE EXCEPTION 'the table % has just been made by others', name;
        END IF;
        EXECUTE pg_catalog.format('ALTER TABLE outbox_history ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                                  name, lower_bound, upper_bound);
        EXECUTE pg_catalog.format('ALTER TABLE %I DROP CONSTRAINT IF EXISTS %I', name, name || '_day');
    END $$
    """,
    # For a relay whose role does not own the table and so may not DETACH CONCURRENTLY. A table of others stays.
    f"""
    CREATE FUNCTION outbox_drop_partition(day date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '2s' AS $$
    DECLARE
        name text := 'outbox_history_' || pg_catalog.to_char(day::timestamp, 'YYYYMMDD');
        history pg_catalog.pg_class;
        found text;
    BEGIN
        IF day >= (pg_catalog.clock_timestamp() AT TIME ZONE 'UTC')::date THEN
            RAISE EXCEPTION 'the partition of % is still in use', day;
        END IF;
        SELECT h.* INTO history FROM pg_catalog.pg_class AS h WHERE h.oid = 'outbox_history'::pg_catalog.regclass;
        FOR found IN
            SELECT c.relname::text FROM pg_catalog.pg_class AS c
            WHERE c.relnamespace = history.relnamespace AND c.relkind = 'r' AND c.relowner = history.relowner
              AND {IS_THE_DAYS}
        LOOP
            EXECUTE pg_catalog.format('DROP TABLE %I', found);
        END LOOP;
    END $$
    """,
    # They run with their owner's rights: for those alone to whom `outbox db grants` gives them.
    "REVOKE EXECUTE ON FUNCTION outbox_add_partition(date), outbox_drop_partition(date) FROM PUBLIC",
    # ------------------------------------------- registry, relays, audit, inbox
    f"""
    CREATE TABLE outbox_destination (
        name text PRIMARY KEY,
        kind text NOT NULL,
        events jsonb NOT NULL,
        wanted jsonb NOT NULL DEFAULT '[]',
        on_dead text NOT NULL DEFAULT 'block' CHECK (on_dead IN ('block', 'skip')),
        generation integer NOT NULL,
        state text NOT NULL DEFAULT 'healthy' CHECK (state IN ({DESTINATION_STATES})),
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
            ((state = 'healthy') = (reason IS NULL) AND (state = 'healthy') = (paused_by IS NULL))
    )
    """,
    "CREATE INDEX outbox_destination_generation ON outbox_destination (generation)",
    """
    CREATE TABLE outbox_relay (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id text NOT NULL,
        backend_pid integer,
        presence integer,
        release text NOT NULL,
        shards jsonb NOT NULL DEFAULT '[]',
        wants integer NOT NULL DEFAULT 0,
        started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE outbox_shard (
        shard smallint PRIMARY KEY CHECK (shard BETWEEN 0 AND 63),
        dirty boolean NOT NULL DEFAULT false,
        owner text,
        relay bigint,
        started jsonb
    ) WITH (fillfactor = 50)
    """,
    "INSERT INTO outbox_shard (shard) SELECT generate_series(0, 63)",
    """
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
    )
    """,
    "CREATE INDEX outbox_audit_part ON outbox_audit (part_of) WHERE part_of IS NOT NULL",
    """
    CREATE TABLE outbox_sample (
        at timestamptz NOT NULL,
        relay text NOT NULL,
        span_s double precision NOT NULL CONSTRAINT outbox_sample_spans_time CHECK (span_s > 0),
        facts jsonb NOT NULL,
        PRIMARY KEY (at, relay)
    )
    """,
    """
    CREATE TABLE inbox_message (
        listener text NOT NULL,
        message_id text NOT NULL,
        done_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (listener, message_id)
    )
    """,
    "CREATE INDEX inbox_message_done ON inbox_message (done_at)",
    # What all relays together may send to a destination: the budget of its rate limit (relay/decide/rate.py).
    """
    CREATE TABLE outbox_rate (
        destination text PRIMARY KEY,
        rate text,
        arrival_s double precision NOT NULL DEFAULT 0
    ) WITH (fillfactor = 50)
    """,
    "CREATE TABLE outbox_meta (schema_version integer PRIMARY KEY, oldest_release text NOT NULL)",
    "INSERT INTO outbox_meta VALUES (2, '0.1.0')",
    # ----------------------------------------------------------------- wake-up
    # 0: never notify. 1: every relay is awake. 2: some relay sleeps. A sequence, because its value is current in every
    # snapshot and leaves no dead rows behind.
    "CREATE SEQUENCE outbox_wake MINVALUE 0 START 1",
    # synchronous_commit: a relay must never send what a crash of the server could still take back.
    """
    CREATE FUNCTION outbox_message_inserted() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    BEGIN
        IF pg_catalog.current_setting('synchronous_commit') = 'off' THEN
            PERFORM pg_catalog.set_config('synchronous_commit', 'on', true);
        END IF;
        IF (SELECT last_value FROM outbox_wake) = 2 THEN
            PERFORM pg_catalog.pg_notify('outbox_wake', TG_TABLE_SCHEMA::text);
        END IF;
        RETURN NULL;
    END $$
    """,
    """CREATE TRIGGER outbox_message_inserted AFTER INSERT ON outbox_message
       FOR EACH STATEMENT EXECUTE FUNCTION outbox_message_inserted()""",
    # ------------------------------------------------------- for other languages
    """
    CREATE FUNCTION outbox_uuid7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
        SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
            PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
            FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
    $$
    """,
    # Every role that emits may call it. A row on its way to the history is waited for: it is in one place or the other.
    """
    CREATE FUNCTION outbox_new_id(given uuid) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    BEGIN
        PERFORM FROM outbox_message WHERE id = given FOR KEY SHARE;
        IF FOUND THEN
            RAISE unique_violation USING TABLE = 'outbox_message', COLUMN = 'id',
                MESSAGE = pg_catalog.format('outbox_message.id %s: a message with this id is not settled yet', given);
        END IF;
        PERFORM FROM outbox_history WHERE id = given;
        IF FOUND THEN
            RAISE unique_violation USING TABLE = 'outbox_message', COLUMN = 'id',
                MESSAGE = pg_catalog.format('outbox_message.id %s: a message with this id is settled already', given);
        END IF;
        RETURN given;
    END $$
    """,
    """
    CREATE FUNCTION outbox_emit(
        type text, data jsonb, ordering_key text DEFAULT NULL, subject text DEFAULT NULL,
        headers jsonb DEFAULT '{}', due_at timestamptz DEFAULT NULL, id uuid DEFAULT NULL
    ) RETURNS uuid LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
    DECLARE
        new_id uuid := CASE WHEN id IS NULL THEN outbox_uuid7() ELSE outbox_new_id(id) END;
    BEGIN
        INSERT INTO outbox_message (id, type, source, subject, ordering_key, data, headers, due_at, state)
        VALUES (new_id, type, 'outbox', subject, ordering_key, data, coalesce(headers, '{}'), due_at,
                CASE WHEN due_at IS NULL THEN 'ready' ELSE 'scheduled' END);
        RETURN new_id;
    END $$
    """,
    # Temporary tables come last. By default they come before all schemas: any session could put tables of its own in
    # the place of ours, and the row policies of these would be executed with the rights of our owner.
    """
    DO $$
    DECLARE
        function regprocedure;
    BEGIN
        FOREACH function IN ARRAY ARRAY['outbox_add_partition(date)', 'outbox_drop_partition(date)',
                                        'outbox_message_inserted()', 'outbox_new_id(uuid)']::regprocedure[] LOOP
            EXECUTE pg_catalog.format('ALTER FUNCTION %s SET search_path TO %I, pg_temp', function,
                                      pg_catalog.current_schema());
        END LOOP;
    END $$
    """,
    """SELECT outbox_add_partition((clock_timestamp() AT TIME ZONE 'UTC')::date + offset_days)
       FROM generate_series(0, 3) AS offset_days""",
]

SQLITE_NOW = "(strftime('%Y-%m-%d %H:%M:%f', 'now'))"

# Dates are compared as text, so there is one way to write them: in UTC, with or without a fraction.
SQLITE_IS_DATE = """
    date(substr({at}, 1, 10), '+0 days') IS substr({at}, 1, 10) AND {at} GLOB '* *'
    AND time(substr({at}, 12, 8)) IS substr({at}, 12, 8)
    AND (length({at}) = 19 OR substr({at}, 20) GLOB '.[0-9]*' AND substr({at}, 21) NOT GLOB '*[^0-9]*')"""

SQLITE = [
    # A column declared JSON turns the text 1 into a number, so that a body would be no text: refused by its typeof.
    # One relay reads the whole file, so a shard here is a name and no more: any spread will do.
    f"""
    CREATE TABLE outbox_message (
        id VARCHAR(36) NOT NULL UNIQUE,
        position INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL CHECK (position > 0),
        type TEXT NOT NULL,
        source TEXT NOT NULL CHECK (source <> ''),
        subject TEXT,
        ordering_key TEXT CHECK (length(ordering_key) BETWEEN 1 AND 255),
        data JSON NOT NULL CHECK (json_type(data) IN ('object', 'array') AND typeof(data) = 'text'),
        headers JSON NOT NULL DEFAULT '{{}}' CHECK (json_type(headers) = 'object'),
        created_at DATETIME NOT NULL DEFAULT {SQLITE_NOW},
        due_at DATETIME,
        expires_at DATETIME,
        state TEXT NOT NULL DEFAULT 'ready' CHECK (state IN ({STATES})),
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
            (datetime(created_at, '+0 days') IS substr(created_at, 1, 19) AND substr(created_at, 1, 4) > '0001'),
        CONSTRAINT outbox_message_due_is_date CHECK (due_at IS NULL OR {SQLITE_IS_DATE.format(at="due_at")}),
        CONSTRAINT outbox_message_expires_is_date CHECK
            (expires_at IS NULL OR {SQLITE_IS_DATE.format(at="expires_at")}),
        CONSTRAINT outbox_message_due_is_scheduled CHECK
            ((state = 'ready') <= (due_at IS NULL) AND (state = 'scheduled') <= (due_at IS NOT NULL))
    )
    """,
    "CREATE INDEX outbox_message_ready ON outbox_message (position) WHERE state = 'ready'",
    "CREATE INDEX outbox_message_txid ON outbox_message (txid) WHERE txid > 0",
    "CREATE INDEX outbox_message_due ON outbox_message (due_at, position) WHERE state = 'scheduled'",
    "CREATE INDEX outbox_message_unrouted ON outbox_message (position) WHERE state = 'unrouted'",
    f"""
    CREATE TABLE outbox_delivery (
        message_id VARCHAR(36) NOT NULL,
        destination TEXT NOT NULL,
        shard SMALLINT NOT NULL,
        position INTEGER NOT NULL,
        ordering_key TEXT,
        state TEXT NOT NULL CHECK (state IN ({DELIVERY_STATES})),
        generation INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
        due_at DATETIME,
        first_failed_at DATETIME,
        reason TEXT,
        fingerprint TEXT,
        log JSON NOT NULL DEFAULT '[]',
        changed_at DATETIME NOT NULL DEFAULT {SQLITE_NOW},
        txid INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (message_id, destination),
        CONSTRAINT outbox_delivery_retry_has_due_at CHECK ((state = 'retry') = (due_at IS NOT NULL)),
        CONSTRAINT outbox_delivery_dead_has_reason CHECK ((state = 'dead') <= (reason IS NOT NULL)),
        CONSTRAINT outbox_delivery_blocked_has_key CHECK ((state = 'blocked') <= (ordering_key IS NOT NULL))
    )
    """,
    "CREATE INDEX outbox_delivery_parked ON outbox_delivery (destination, position) WHERE state = 'parked'",
    """CREATE INDEX outbox_delivery_key ON outbox_delivery (ordering_key, destination, position)
       WHERE ordering_key IS NOT NULL AND state <> 'delivered'""",
    "CREATE INDEX outbox_delivery_retry ON outbox_delivery (due_at, position) WHERE state = 'retry'",
    "CREATE INDEX outbox_delivery_dead ON outbox_delivery (destination, changed_at) WHERE state = 'dead'",
    "CREATE INDEX outbox_delivery_txid ON outbox_delivery (txid) WHERE txid > 0",
    f"""
    CREATE TABLE outbox_history (
        id VARCHAR(36) NOT NULL,
        delivered_at DATETIME NOT NULL DEFAULT {SQLITE_NOW},
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
    )
    """,
    "CREATE INDEX outbox_history_id ON outbox_history (id)",
    "CREATE INDEX outbox_history_outcome ON outbox_history (outcome, id) WHERE outcome IS NOT NULL",
    "CREATE INDEX outbox_history_delivered ON outbox_history (delivered_at)",
    f"""
    CREATE TABLE outbox_destination (
        name TEXT NOT NULL PRIMARY KEY,
        kind TEXT NOT NULL,
        events JSON NOT NULL,
        wanted JSON NOT NULL DEFAULT '[]',
        on_dead TEXT NOT NULL DEFAULT 'block' CHECK (on_dead IN ('block', 'skip')),
        generation INTEGER NOT NULL,
        state TEXT NOT NULL DEFAULT 'healthy' CHECK (state IN ({DESTINATION_STATES})),
        reason TEXT,
        note TEXT,
        paused_by TEXT CHECK (paused_by IN ('failure', 'operator')),
        until DATETIME,
        pauses INTEGER NOT NULL DEFAULT 0,
        disputed_at DATETIME,
        resumed_at DATETIME,
        removed_at DATETIME,
        since DATETIME NOT NULL DEFAULT {SQLITE_NOW},
        changed_at DATETIME NOT NULL DEFAULT {SQLITE_NOW},
        CONSTRAINT outbox_destination_paused_has_reason CHECK
            ((state = 'healthy') = (reason IS NULL) AND (state = 'healthy') = (paused_by IS NULL))
    )
    """,
    "CREATE INDEX outbox_destination_generation ON outbox_destination (generation)",
    f"""
    CREATE TABLE outbox_relay (
        number INTEGER NOT NULL PRIMARY KEY,
        id TEXT NOT NULL,
        backend_pid INTEGER,
        presence INTEGER,
        release TEXT NOT NULL,
        shards JSON NOT NULL DEFAULT '[]',
        wants INTEGER NOT NULL DEFAULT 0,
        started_at DATETIME NOT NULL DEFAULT {SQLITE_NOW},
        last_seen_at DATETIME NOT NULL DEFAULT {SQLITE_NOW}
    )
    """,
    """
    CREATE TABLE outbox_shard (
        shard SMALLINT NOT NULL PRIMARY KEY CHECK (shard BETWEEN 0 AND 63),
        dirty BOOLEAN NOT NULL DEFAULT 0,
        owner TEXT,
        relay INTEGER,
        started JSON
    )
    """,
    """INSERT INTO outbox_shard (shard)
       WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < 63) SELECT n FROM s""",
    f"""
    CREATE TABLE outbox_audit (
        id INTEGER NOT NULL PRIMARY KEY,
        part_of INTEGER,
        at DATETIME NOT NULL DEFAULT {SQLITE_NOW},
        role TEXT,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        target JSON NOT NULL,
        count INTEGER NOT NULL,
        reason TEXT
    )
    """,
    "CREATE INDEX outbox_audit_part ON outbox_audit (part_of) WHERE part_of IS NOT NULL",
    """
    CREATE TABLE outbox_sample (
        at DATETIME NOT NULL,
        relay TEXT NOT NULL,
        span_s DOUBLE NOT NULL CONSTRAINT outbox_sample_spans_time CHECK (span_s > 0),
        facts JSON NOT NULL,
        PRIMARY KEY (at, relay)
    )
    """,
    f"""
    CREATE TABLE inbox_message (
        listener TEXT NOT NULL,
        message_id TEXT NOT NULL,
        done_at DATETIME NOT NULL DEFAULT {SQLITE_NOW},
        PRIMARY KEY (listener, message_id)
    )
    """,
    "CREATE INDEX inbox_message_done ON inbox_message (done_at)",
    """
    CREATE TABLE outbox_rate (
        destination TEXT NOT NULL PRIMARY KEY,
        rate TEXT,
        arrival_s DOUBLE NOT NULL DEFAULT 0
    )
    """,
    "CREATE TABLE outbox_meta (schema_version INTEGER NOT NULL PRIMARY KEY, oldest_release TEXT NOT NULL)",
    "INSERT INTO outbox_meta VALUES (2, '0.1.0')",
]

TABLES = [
    "outbox_message", "outbox_delivery", "outbox_history", "outbox_destination", "outbox_relay",
    "outbox_shard", "outbox_audit", "outbox_sample", "inbox_message", "outbox_rate", "outbox_meta",
]  # fmt: skip

FUNCTIONS = [
    "outbox_emit", "outbox_new_id", "outbox_uuid7", "outbox_add_partition", "outbox_drop_partition",
    "outbox_message_checked", "outbox_message_applied", "outbox_delivery_applied", "outbox_message_inserted",
]  # fmt: skip


def upgrade() -> None:
    for statement in POSTGRES if _on_postgres() else SQLITE:
        op.execute(statement)


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE {table}")
    if _on_postgres():
        for function in FUNCTIONS:
            op.execute(f"DROP FUNCTION {function}")
        op.execute("DROP SEQUENCE outbox_wake")


def _on_postgres() -> bool:
    return op.get_context().dialect.name == "postgresql"
