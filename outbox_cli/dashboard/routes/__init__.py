"""The addresses: each page as HTML, and with `.json` the same data as JSON."""
