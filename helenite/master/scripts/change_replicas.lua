-- prelude: script tree content replicas
-- Note that a chunkserver certainly holds a chunk, or no longer does. Answers 1, or 0 when the chunk is not in the table
-- or is still to be deleted. A server that holds a replica is not deleting it: an order to do so is called off.

return run(function()
  check_epoch()
  local key, field = bucket_key(bucket_of(request.handle)), request.handle % BUCKET_CHUNKS
  local replicas = call('HGET', key, field)
  if not replicas then return {'', 0} end
  if request.is_held and call('SISMEMBER', unused_key(request.server), request.handle) == 1 then return {'', 0} end
  local others = without(replicas, request.server)
  if request.is_held then
    call('SREM', surplus_key(request.server), request.handle)
    others = others .. struct.pack('>I2', request.server)
  end
  if others ~= replicas then call('HSET', key, field, others) end
  return {'', 1}
end)
