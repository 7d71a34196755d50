-- The partition is created as a table and then attached: ATTACH takes SHARE UPDATE EXCLUSIVE on the parent, whereas
-- PARTITION OF would stop every reader. The CHECK makes a scan unnecessary. A table of ours that was detached is
-- attached again, because messages cannot be settled on a day without a partition. A table of another owner is not
-- attached, because its triggers would run with our rights: it keeps its name, and the partition gets a name that
-- cannot be guessed. The function takes a table lock, which requires a right on the table; every role can hold an
-- advisory lock.
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
                 AND c.relname::text ~ ('^' || name || '(_[0-9a-f]{8})?$')) THEN RETURN; END IF;
    -- Ours: it has the owner of `history`, and no trigger, rule, policy or inheritance.
    SELECT c.relkind = 'r' AND c.relowner = history.relowner AND NOT c.relrowsecurity
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = c.oid)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class = c.oid)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy AS p WHERE p.polrelid = c.oid)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE c.oid IN (i.inhrelid, i.inhparent))
    INTO is_ours
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
    IF NOT (SELECT c.relkind = 'r' AND c.relowner = history.relowner AND NOT c.relrowsecurity
                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = c.oid)
                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class = c.oid)
                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy AS p WHERE p.polrelid = c.oid)
                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE c.oid IN (i.inhrelid, i.inhparent))
            FROM pg_catalog.pg_class AS c WHERE c.relnamespace = history.relnamespace AND c.relname::text = name) THEN
        RAISE EXCEPTION 'another role has just created the table %', name;
    END IF;
    EXECUTE pg_catalog.format('ALTER TABLE outbox_history ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                              name, lower_bound, upper_bound);
    EXECUTE pg_catalog.format('ALTER TABLE %I DROP CONSTRAINT IF EXISTS %I', name, name || '_day');
END $$;

-- For a relay whose role does not own the table, and so may not DETACH CONCURRENTLY. Tables of other owners stay.
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
          AND c.relname::text ~ ('^' || name || '(_[0-9a-f]{8})?$')
    LOOP
        EXECUTE pg_catalog.format('DROP TABLE %I', found);
    END LOOP;
END $$;

-- These functions run with their owner's rights: only roles that `outbox db grants` names may call them.
REVOKE EXECUTE ON FUNCTION outbox_add_partition(date), outbox_drop_partition(date) FROM PUBLIC;

-- ----------------------------------------------------------- strict order
-- Waits for the other transactions that emit with strict_order and a key of these slots. A row lock, unlike an advisory
-- lock, needs a right: roles that may not emit cannot hold a key up. In the order of the slots, so that two transactions
-- with several keys do not wait for each other.
CREATE FUNCTION outbox_take_turns(keys text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    wanted smallint[] := ARRAY(SELECT DISTINCT (pg_catalog.hashtextextended(key, 0) & 1023::bigint)::smallint
                               FROM unnest(keys) AS key);
    found_count bigint;
BEGIN
    PERFORM FROM outbox_turn WHERE slot = ANY (wanted) ORDER BY slot FOR UPDATE;
    GET DIAGNOSTICS found_count = ROW_COUNT;
    IF found_count < cardinality(wanted) THEN
        INSERT INTO outbox_turn SELECT unnest(wanted) ON CONFLICT DO NOTHING;
        PERFORM FROM outbox_turn WHERE slot = ANY (wanted) ORDER BY slot FOR UPDATE;
    END IF;
END $$;

REVOKE EXECUTE ON FUNCTION outbox_take_turns(text[]) FROM PUBLIC;

-- ------------------------------------------------------- for other languages
CREATE FUNCTION outbox_uuid7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
        PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
        FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
$$;

-- Every role that emits may call it. FOR KEY SHARE waits for a row that is being moved to the history: afterwards the
-- row is in one of the two tables.
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
END $$;

CREATE FUNCTION outbox_emit(
    type text, data json, ordering_key text DEFAULT NULL, subject text DEFAULT NULL,
    headers json DEFAULT '{}', due_at timestamptz DEFAULT NULL, id uuid DEFAULT NULL,
    expires_at timestamptz DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    new_id uuid := CASE WHEN id IS NULL THEN outbox_uuid7() ELSE outbox_new_id(id) END;
BEGIN
    INSERT INTO outbox_message (id, type, source, subject, ordering_key, data, headers, due_at, state,
                                expires_at)
    VALUES (new_id, type, 'outbox', subject, ordering_key, data, coalesce(headers, '{}'), due_at,
            CASE WHEN due_at IS NULL THEN 'ready' ELSE 'scheduled' END, expires_at);
    RETURN new_id;
END $$;

-- Temporary tables come last. By default they come before all schemas: a session could replace our tables by temporary
-- ones, whose row policies would then run with the rights of our owner.
DO $$
DECLARE
    function regprocedure;
BEGIN
    FOREACH function IN ARRAY ARRAY['outbox_add_partition(date)', 'outbox_drop_partition(date)',
                                    'outbox_new_id(uuid)', 'outbox_take_turns(text[])']::regprocedure[] LOOP
        EXECUTE pg_catalog.format('ALTER FUNCTION %s SET search_path TO %I, pg_temp', function,
                                  pg_catalog.current_schema());
    END LOOP;
END $$;

SELECT outbox_add_partition((clock_timestamp() AT TIME ZONE 'UTC')::date + offset_days)
    FROM generate_series(0, 3) AS offset_days;
