"""The Lua scripts: each mutation, and each read that must see one moment, is one of them. `master/store` loads them.

A script's first line names the preludes that are put before it: `prelude_script` (request, refusal, repeats),
`prelude_tree` (records, paths, totals, feed), `prelude_view` (what look-ups and listings bring), `prelude_locks`,
`prelude_content` (extents, references, trash), `prelude_target` (of a move or copy), `prelude_replicas` (those that are
to go), `prelude_guard` (whether anything may be deleted).
"""
