"""Tasks: what is learnt, behind one shape."""
