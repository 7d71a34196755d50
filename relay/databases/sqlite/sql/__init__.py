"""The statements of the store on SQLite, each with the index that it uses."""
