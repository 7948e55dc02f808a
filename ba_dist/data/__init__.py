"""Samples: where they come from, how a group reads them, how copies of them are augmented."""
