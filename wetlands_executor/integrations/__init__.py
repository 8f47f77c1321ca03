"""Other tools and libraries. Uses public names only; nothing of the core imports this."""
