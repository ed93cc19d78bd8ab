"""Robots behind `steer.robot.Robot`: the Panda in PyBullet, any gymnasium environment, and a fake for tests.

Each is found by name through the entry points of the group `steer.robots`.
"""
