-- What a look-up or a listing brings beside the record: replicas, dead properties, locks.

local LOCATED_EXTENTS_MAX = 256 -- 2 GiB at the default chunk size; later ones are asked for with Locate

local function read_all_replicas(extents)
  local replicas = {}
  for at = 1, math.min(#extents, LOCATED_EXTENTS_MAX * EXTENT_BYTES), EXTENT_BYTES do
    replicas[#replicas + 1] = read_replicas(u64(extents, at)) or ''
  end
  return replicas
end

-- msgpack {replicas, properties as name, value, ..., locks}, or '' when there is nothing.
local function pack_extra(record, extents, locks)
  local replicas, properties = {}, {}
  if request.with_locations then replicas = read_all_replicas(extents) end
  if request.with_properties and has_flag(record, PROPERTIES) then
    properties = call('HGETALL', P .. 'x:' .. id_of(record))
  end
  if #replicas == 0 and #properties == 0 and #locks == 0 then return '' end
  return cmsgpack.pack({replicas, properties, locks})
end
