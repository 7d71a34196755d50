"""How operators' actions reach the database: opening it, shared queries, transactions."""
