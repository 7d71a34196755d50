"""How operators' actions reach the database: opening it, questions that they share, transactions."""
