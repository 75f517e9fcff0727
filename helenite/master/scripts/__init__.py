"""The Lua scripts: each mutation, and each read that must see one moment, is one of them. `master/store` loads them.

A script's first line names the preludes that are put before it: `prelude_script` (request, refusal, repeats),
`prelude_tree` (records, paths, totals, feed), `prelude_locks`, `prelude_content` (extents, references, trash).
"""
