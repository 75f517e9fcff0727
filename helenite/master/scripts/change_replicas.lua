-- prelude: script tree content
-- Note that a chunkserver holds a chunk, or no longer does. Answers 1, or 0 when the chunk is not in the table or its
-- replica there is still to be deleted.

return run(function()
  check_epoch()
  local key, field = bucket_key(bucket_of(request.handle)), request.handle % BUCKET_CHUNKS
  local replicas = call('HGET', key, field)
  if not replicas then return {'', 0} end
  if request.is_held and call('SISMEMBER', P .. 'del:' .. struct.unpack('>I2', request.server), request.handle) == 1 then
    return {'', 0}
  end
  local others = ''
  for at = 1, #replicas, 2 do
    local server = sub(replicas, at, at + 1)
    if server ~= request.server then others = others .. server end
  end
  call('HSET', key, field, request.is_held and others .. request.server or others)
  return {'', 1}
end)
