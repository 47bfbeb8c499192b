"""`cotrain sessions`: open, watch and steer a coordinator's sessions from a shell."""
