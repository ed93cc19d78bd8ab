"""Training: one loop for every objective, and the state that resumes it exactly. Needs torch."""
