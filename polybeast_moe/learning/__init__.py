"""Learning: phases and their schedules, losses, the learner."""
