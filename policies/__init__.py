"""Policy families. Each is a folder with a `FAMILY`, found by the entry points of the group `steer.policies`."""
