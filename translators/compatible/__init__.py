"""DashScope's OpenAI-compatible surface, as a second caller's tongue: calls in, chunks and completions out."""
