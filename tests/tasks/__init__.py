"""Tasks that can be watched, steered and trusted."""
