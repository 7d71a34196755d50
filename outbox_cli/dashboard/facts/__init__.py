"""The data of the pages: a template renders it, and `.json` returns it unchanged."""
