-- prelude: script tree content guard
-- Chunks that a chunkserver should delete; they are named again until it confirms.

return run(function()
  return {'', may_delete() and call('SRANDMEMBER', P .. 'del:' .. request.server, request.limit) or {}}
end)
