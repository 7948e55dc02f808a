"""`model.fit` of Keras on several ranks: the optimizer, and callbacks around those of a script."""
