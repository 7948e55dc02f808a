"""Files that are there whole or not at all, who may write them, and where they are kept."""
