"""Weight files: reading, checking, converting and locating them."""
