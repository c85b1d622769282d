"""What was promised: machines that say, for a state and a request, what the answer and the next state are."""
