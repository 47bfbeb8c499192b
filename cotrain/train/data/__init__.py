"""Data: from files and folders to samples, and which peer takes which sample when."""
