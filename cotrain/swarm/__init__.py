"""What touches hivemind: peers, rounds, exact averaging, the state that joiners download."""
