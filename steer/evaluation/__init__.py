"""Paired evaluation: rollouts on the same initial states with and without the critic, statistics, and the report."""
