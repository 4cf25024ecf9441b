"""What every call used: the journal that is written, and the ledger that reads it."""
