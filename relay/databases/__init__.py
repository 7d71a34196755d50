"""Databases: URLs, connections, migrations, rights; and for each database a folder with the code that only it needs."""
