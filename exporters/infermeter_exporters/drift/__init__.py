"""The drift exporter: whether what models see and say is still what it was."""
