"""What an operator runs: the command `infermeter`."""
