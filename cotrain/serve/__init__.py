"""OpenAI-compatible chats with a trained model: torch, and nothing of swarms."""
