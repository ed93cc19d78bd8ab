"""The robot's side: the client of the server, the control loop and its safety. Imports neither torch nor jax."""
