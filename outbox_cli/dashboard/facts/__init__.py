"""What the pages show, as plain data: a template renders it, and `.json` answers it as it is."""
