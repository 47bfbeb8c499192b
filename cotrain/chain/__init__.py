"""Records of sessions on a public chain: the registry's contract, and proofs of who gave how much."""
