"""Records of sessions on an EVM chain: queued in the database, sent when the chain is there. Off unless configured."""
