"""The vendor's chat template: how a conversation, its tools and its calls are written for a model."""
