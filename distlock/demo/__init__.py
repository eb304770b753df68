"""The demonstrations: `pipeline` and `cache` start servers and processes of their own, kill some of
them on the way, and prove at the end that all went well.

- `stage` is what both stand on.
- Of the cache's: `worker` is one of its processes, `story` what they said, `judge` decides whether
  each value was computed once, `result` shows it, `victim` finds out from a node who computes.
"""
