"""Peers: an environment and an adapter for each system that `side_by_side.py` measures beside this one.

`python -m peers.NAME FOLDER/job.json`, with this folder's parent on the path, trains in the environment of that peer
and prints one line of JSON (`meter.py`). Adapters and what they share (`job`, `memory`, `meter`, `network`, `games`)
import nothing of this project, which most environments do not have; `engine_games`, which needs it, is imported late.
"""
