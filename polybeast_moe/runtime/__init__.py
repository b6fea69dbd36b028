"""Who steps the games and runs the policy: rollout slots, and the inline mode that drives them in one process."""
