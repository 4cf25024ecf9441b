"""The upstream tongue: OpenAI-style bodies out, completions, chunks and failures in."""
