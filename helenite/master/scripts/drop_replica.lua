-- prelude: script tree content guard
-- Take one replica of a chunk out of the table and order its deletion, if more than `keep` are named and the
-- guard allows it. Answers 1 or 0.

return run(function()
  check_epoch()
  if not may_delete() then return {'', 0} end
  local key, field = bucket_key(bucket_of(request.handle)), request.handle % BUCKET_CHUNKS
  local replicas = call('HGET', key, field)
  if not replicas then return {'', 0} end
  local others = ''
  for at = 1, #replicas, 2 do
    local server = sub(replicas, at, at + 1)
    if server ~= request.server then others = others .. server end
  end
  if #others == #replicas or #others < 2 * request.keep then return {'', 0} end
  call('HSET', key, field, others)
  call('SADD', P .. 'del:' .. struct.unpack('>I2', request.server), request.handle)
  return {'', 1}
end)
