"""The commands of ``outbox``: ``run`` starts or prepares processes, ``look`` shows data, ``act`` changes it."""
