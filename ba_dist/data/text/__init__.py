"""Text: files read, and what stands for words and pieces of words."""
