"""Auto-learning: chats become data, data become the next session."""
