-- prelude: script tree content
-- The replicas of chunks, '' for those that are not in the table.

return run(function() return {'', read_replicas(request.handles)} end)
