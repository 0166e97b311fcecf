"""A bounded soak with faults: `make chaos`. Real broker, real gateway process, and a ledger of every message."""
