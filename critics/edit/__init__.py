"""The edit actor (EXPO, arXiv 2507.07986): learns bounded edits of proposed chunks that the critic prefers."""
