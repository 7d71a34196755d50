-- One trigger checks a message, fills in its shard and size, and wakes up a sleeping relay (docs/decisions/0020).
-- PostgreSQL prepares each expression once per transaction, at a cost for each function in it. So one expression covers
-- the common message: new, ready, without headers, and no relay to notify. All other messages take the branch. The data is
-- made a text once: each conversion copies it.
--
-- A missing value is NULL here. No condition treats NULL as a fault; the NOT NULL constraint refuses it afterwards and
-- names the column. A relay that sets a message aside is not refused for a fault that the row had before, from a time
-- without triggers. A message that becomes readable gets the current transaction id: relays find it by that id, even
-- below their cursors.
--
-- A relay that has just gone to sleep waits for the transactions that were running at that moment. So this transaction
-- must have its id before it checks whether a relay sleeps; the first condition ensures that. synchronous_commit: a relay
-- must never send a message that a crash of the server could still undo.
DO $do$
BEGIN
    EXECUTE pg_catalog.replace($create$
CREATE FUNCTION outbox_message_checked() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    fault text;
    given text;
    body text := NEW.data;
BEGIN
    IF (NEW.txid <> pg_catalog.pg_current_xact_id()
        OR pg_catalog.octet_length(NEW.type) > 255 OR NEW.type !~ '^[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*$'
        OR NEW.source = ''
        OR NEW.ordering_key = '' OR pg_catalog.octet_length(NEW.ordering_key) > 255
        OR pg_catalog.ascii(body) NOT IN (123, 91) -- '{' and '['
        OR pg_catalog.strpos(body, E'\\u') > 0
        OR NEW.headers::text <> '{}'
        OR NEW.state <> 'ready' OR NEW.due_at IS NOT NULL
        OR NEW.expires_at NOT BETWEEN '0002-01-01Z' AND '9999-01-01Z'
        OR NEW.created_at NOT BETWEEN '0002-01-01Z' AND '9999-01-01Z'
        OR NEW.position <= 0
        OR pg_catalog.pg_sequence_last_value('outbox_wake'::regclass) = 2
        OR pg_catalog.current_setting('synchronous_commit') = 'off') THEN
        fault := CASE
            WHEN pg_catalog.length(NEW.type) > 255 OR NEW.type !~ '^[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*$' THEN 'type'
            WHEN NEW.source = '' THEN 'source'
            WHEN pg_catalog.length(NEW.ordering_key) NOT BETWEEN 1 AND 255 THEN 'ordering_key'
            WHEN pg_catalog.json_typeof(NEW.data) NOT IN ('object', 'array') THEN 'data'
            WHEN pg_catalog.json_typeof(NEW.headers) <> 'object' THEN 'headers'
            WHEN NEW.state NOT IN ('ready', 'scheduled', 'held', 'unrouted') THEN 'state'
            WHEN NEW.state = 'ready' AND NEW.due_at IS NOT NULL THEN 'due_at'
            WHEN NEW.state = 'scheduled' AND NEW.due_at IS NULL THEN 'due_at'
            WHEN NEW.due_at NOT BETWEEN '0002-01-01Z' AND '9999-01-01Z' THEN 'due_at'
            WHEN NEW.expires_at NOT BETWEEN '0002-01-01Z' AND '9999-01-01Z' THEN 'expires_at'
            WHEN NEW.created_at NOT BETWEEN '0002-01-01Z' AND '9999-01-01Z' THEN 'created_at'
            WHEN NEW.position <= 0 THEN 'position'
        END;
        IF fault IS NOT NULL THEN
            EXECUTE pg_catalog.format('SELECT ($1).%I::text', fault) INTO given USING NEW;
            IF NEW.state IN ('held', 'unrouted') AND TG_OP = 'UPDATE' THEN
                EXECUTE pg_catalog.format('SELECT NULLIF(%L, ($1).%I::text)', given, fault) INTO given USING OLD;
            END IF;
            IF given IS NOT NULL OR NEW.state NOT IN ('held', 'unrouted') THEN
                RAISE check_violation USING TABLE = TG_TABLE_NAME, COLUMN = fault, MESSAGE = pg_catalog.format(
                    'outbox_message.%s %L: write %s', fault, pg_catalog.left(given, 80), CASE fault
                        WHEN 'type' THEN 'words of letters, digits, _ and -, separated by dots, at most 255 characters'
                        WHEN 'source' THEN 'who sends it'
                        WHEN 'ordering_key' THEN '1 to 255 characters, or NULL'
                        WHEN 'data' THEN 'an object or an array, as in {"value": 1}'
                        WHEN 'headers' THEN 'an object, as in {"name": "value"}'
                        WHEN 'state' THEN 'nothing, or scheduled, together with a due_at'
                        WHEN 'due_at' THEN 'an instant before the year 9999 with the state scheduled, NULL with ready'
                        WHEN 'expires_at' THEN 'an instant before the year 9999, or NULL'
                        WHEN 'created_at' THEN 'nothing, or an instant before the year 9999'
                        WHEN 'position' THEN 'nothing: the database assigns it'
                    END);
            END IF;
        END IF;
        IF NEW.state IN ('ready', 'scheduled') THEN
            -- json accepts an escaped NUL or lone surrogate, which text cannot hold; jsonb refuses both.
            IF pg_catalog.strpos(body, E'\\u') > 0 OR NEW.headers::text LIKE '%\\u%' THEN
                PERFORM NEW.data::jsonb, NEW.headers::jsonb;
            END IF;
            NEW.txid := pg_catalog.pg_current_xact_id();
        ELSIF TG_OP = 'INSERT' AND NOT pg_catalog.has_table_privilege(TG_RELID, 'UPDATE') THEN
            RAISE check_violation USING TABLE = TG_TABLE_NAME, COLUMN = 'state', MESSAGE = pg_catalog.format(
                'outbox_message.state %L: write nothing, or scheduled, together with a due_at', NEW.state);
        END IF;
        IF TG_OP = 'INSERT' THEN
            IF pg_catalog.current_setting('synchronous_commit') = 'off' THEN
                PERFORM pg_catalog.set_config('synchronous_commit', 'on', true);
            END IF;
            IF pg_catalog.pg_sequence_last_value('outbox_wake'::regclass) = 2 THEN
                PERFORM pg_catalog.pg_notify('outbox_wake', TG_TABLE_SCHEMA::text);
            END IF;
        END IF;
    END IF;
    NEW.shard := pg_catalog.hashtextextended(coalesce(NEW.ordering_key, NEW.id::text), 0::bigint) & 63::bigint;
    NEW.size := pg_catalog.octet_length(body);
    RETURN NEW;
END $$
    $create$, '''outbox_wake''::regclass', pg_catalog.quote_literal(
        pg_catalog.format('%I.outbox_wake', pg_catalog.current_schema())) || '::regclass');
END $do$;

-- Triggers fire in the order of their names. This one must be last: no other may change a row after the check.
CREATE TRIGGER zz_outbox_message_checked BEFORE INSERT OR UPDATE ON outbox_message
    FOR EACH ROW EXECUTE FUNCTION outbox_message_checked();

-- Rows that logical replication applies fire no ordinary trigger, and carry the publisher's transaction ids. This
-- trigger fires only for them. It refuses nothing: checking the row was the publisher's task.
CREATE FUNCTION outbox_message_applied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.shard := pg_catalog.hashtextextended(coalesce(NEW.ordering_key, NEW.id::text), 0::bigint) & 63::bigint;
    NEW.size := pg_catalog.octet_length(NEW.data::text);
    NEW.txid := pg_catalog.pg_current_xact_id();
    RETURN NEW;
END $$;

CREATE TRIGGER zz_outbox_message_applied BEFORE INSERT OR UPDATE ON outbox_message
    FOR EACH ROW EXECUTE FUNCTION outbox_message_applied();

ALTER TABLE outbox_message ENABLE REPLICA TRIGGER zz_outbox_message_applied;

CREATE FUNCTION outbox_delivery_applied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.shard := pg_catalog.hashtextextended(coalesce(NEW.ordering_key, NEW.message_id::text), 0::bigint) & 63::bigint;
    NEW.txid := pg_catalog.pg_current_xact_id();
    RETURN NEW;
END $$;

CREATE TRIGGER zz_outbox_delivery_applied BEFORE INSERT OR UPDATE ON outbox_delivery
    FOR EACH ROW EXECUTE FUNCTION outbox_delivery_applied();

ALTER TABLE outbox_delivery ENABLE REPLICA TRIGGER zz_outbox_delivery_applied;
