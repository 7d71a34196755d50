DROP FUNCTION outbox_emit;

DROP FUNCTION outbox_take_turns;

DROP FUNCTION outbox_new_id;

DROP FUNCTION outbox_uuid7;

DROP FUNCTION outbox_add_partition;

DROP FUNCTION outbox_drop_partition;

DROP FUNCTION outbox_message_checked;

DROP FUNCTION outbox_message_applied;

DROP FUNCTION outbox_delivery_applied;

DROP SEQUENCE outbox_wake;
