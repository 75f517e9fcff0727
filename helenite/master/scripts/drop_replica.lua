-- prelude: script tree content guard replicas
-- Take one replica of a chunk out of the table and order its deletion, if enough others are certainly there and the
-- guard allows it. Answers 1 or 0.

return run(function()
  check_epoch()
  local key, field = bucket_key(bucket_of(request.handle)), request.handle % BUCKET_CHUNKS
  local replicas = call('HGET', key, field)
  if not may_delete() or not replicas or not is_dispensable(replicas, request.server) then return {'', 0} end
  local others = without(replicas, request.server)
  if others == replicas then return {'', 0} end
  call('HSET', key, field, others)
  call('SADD', surplus_key(request.server), request.handle)
  return {'', 1}
end)
