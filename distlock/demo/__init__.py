"""The demonstrations: `pipeline` and `cache` start servers and processes of their own, kill some of
them on the way, and prove at the end that all went well.

- `stage` is what both stand on.
"""
