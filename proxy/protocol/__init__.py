"""The protocol written down out of the code: documents, OpenAPI, and calls that prove them; serving needs none."""
