"""Upstreams to try things on: a simulated DeepSeek that can fail in every way, and a real llama.cpp."""
