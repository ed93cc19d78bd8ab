"""Steer: a value critic between any robot policy and the robot.

The nouns: `steer.policy.Policy` proposes, `steer.critic.Critic` scores, `steer.engine.Engine` decides,
`steer.robot.Robot` acts, `steer.data.EpisodeStore` remembers.
"""
