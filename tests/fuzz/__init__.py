"""Any bytes become messages or RemoteProtocolError, nothing else."""
