"""A volunteer: the agent that joins a session, and the training process it supervises."""
