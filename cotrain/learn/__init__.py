"""What makes training data of chats. No torch, no database: texts in, datasets on disk out."""
