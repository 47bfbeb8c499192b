"""Who may be in a swarm: certificates that the coordinator signs and that peers verify without asking anybody."""
