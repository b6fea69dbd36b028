"""NetHack environments."""
