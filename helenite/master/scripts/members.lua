-- prelude: script
-- Note that a master or gateway is there (when one is given) and answer all: id, member, ... and the time.

local REMEMBERED_S = 60 -- a silent member is shown as dead for this long, then forgotten

return run(function()
  local now = now_ms()
  if request.member then
    request.member.expires_at_ms = now + request.ttl_ms
    call('HSET', P .. 'members', request.id, cmsgpack.pack(request.member))
  end
  local members, kept = call('HGETALL', P .. 'members'), {}
  for i = 1, #members, 2 do
    if cmsgpack.unpack(members[i + 1]).expires_at_ms + REMEMBERED_S * 1000 < now then
      call('HDEL', P .. 'members', members[i])
    else
      kept[#kept + 1] = members[i]
      kept[#kept + 1] = members[i + 1]
    end
  end
  return {'', now, kept}
end)
