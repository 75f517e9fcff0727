-- What a look-up or a listing brings beside the record: replicas, dead properties, locks.

local LOCATED_EXTENTS_MAX = 256 -- 2 GiB at the default chunk size; later ones are asked for with Locate

-- msgpack {replicas, properties as name, value, ..., locks}, or '' when there is nothing.
local function pack_extra(record, replicas, locks)
  local properties = {}
  if request.with_properties and has_flag(record, PROPERTIES) then
    properties = call('HGETALL', P .. 'x:' .. id_of(record))
  end
  if #replicas == 0 and #properties == 0 and #locks == 0 then return '' end
  return cmsgpack.pack({replicas, properties, locks})
end
