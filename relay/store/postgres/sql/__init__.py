"""The statements of the store on PostgreSQL, each with the index it rides on."""
