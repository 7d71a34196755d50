"""The addresses: each page as HTML, and under the same name with `.json` as the same facts."""
