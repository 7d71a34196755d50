"""The commands of ``outbox``: ``run`` starts or prepares something, ``look`` shows, ``act`` changes what is stored."""
