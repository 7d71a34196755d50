"""Operations on messages, one or many: list, show, cancel, retry, replay."""
