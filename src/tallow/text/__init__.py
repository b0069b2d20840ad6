"""Text: the tokenizer and the transcript."""
