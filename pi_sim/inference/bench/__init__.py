"""The bench: single operations and whole blocks between two real processes, counted, audited and timed."""
