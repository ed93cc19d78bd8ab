"""Reference data of published models, and the comparison of our own with it: `python -m tests.golden FOLDER`."""
