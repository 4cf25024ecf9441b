"""The way of one call: read, prepared, forwarded, relayed and recorded; it knows no HTTP library, no tongue."""
