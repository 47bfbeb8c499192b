"""The coordinator: sessions, participants, configs and live events over REST."""
