"""Many runs of one recipe: which there are, running them, and the table of what came of them."""
