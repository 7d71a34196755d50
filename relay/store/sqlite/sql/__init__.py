"""The statements of the store on SQLite, each with the index it rides on."""
