"""Writing files whole, locking them, and where data is kept."""
