"""The statements of the store on PostgreSQL, each with the index that it uses."""
