-- Locks (RFC 4918 sections 6 and 7). A lock belongs to an entry; {s}:l:<id> holds the tokens of an entry's own locks,
-- {s}:b:<id> of all locks at or beneath a directory. Whatever would take a locked entry from its place needs its token
-- and ends its lock, so the ids of a lock's ancestors stay true for as long as it lives. Expired locks count for
-- nothing and are swept away by the leader.

local LOCKS_MAX = 10000 -- in a space; bounds what a script has to read, and the memory that a lock bomb can take

local function lock_count() return call('HLEN', P .. 'locks') end

local function read_lock(token, now)
  local stored = call('HGET', P .. 'locks', token)
  local lock = stored and cmsgpack.unpack(stored)
  return lock and lock.expires_at_ms > now and lock or nil
end

local function own_locks(id, now)
  local found = {}
  for _, token in ipairs(call('SMEMBERS', P .. 'l:' .. id)) do
    found[#found + 1] = read_lock(token, now)
  end
  return found
end

local function add_infinite(found, ids, now)
  for _, id in ipairs(ids) do
    for _, lock in ipairs(own_locks(id, now)) do
      if lock.is_infinite then found[#found + 1] = lock end
    end
  end
  return found
end

-- All locks that protect an entry: its own and the infinite ones of its ancestors.
local function covering_locks(id, ids, now)
  return add_infinite(own_locks(id, now), ids, now)
end

local function locks_beneath(id, now)
  local found = {}
  for _, token in ipairs(call('SMEMBERS', P .. 'b:' .. id)) do
    found[#found + 1] = read_lock(token, now)
  end
  return found
end

-- A token counts only for the principal who took the lock.
local function is_submitted(lock)
  return lock.principal == request.condition.principal and contains(request.condition.tokens, lock.token)
end

-- One of several shared locks is enough (section 7).
local function require_token(id, ids, now)
  if lock_count() == 0 then return end
  local locks = covering_locks(id, ids, now)
  for _, lock in ipairs(locks) do
    if is_submitted(lock) then return end
  end
  if #locks > 0 then fail('locked', locks[1].path .. ' is locked') end
end

-- Adding or removing a member changes its directory (section 7.4).
local function require_parent_token(place, now)
  if lock_count() == 0 then return end
  local ancestors = {unpack(place.ids, 1, #place.ids - 1)}
  require_token(place.ids[#place.ids], ancestors, now)
end

-- Taking an entry away takes everything beneath it.
local function require_tree_tokens(place, now)
  if lock_count() == 0 then return end
  local id = id_of(place.record)
  require_token(id, place.ids, now)
  if not is_directory(place.record) then return end
  for _, lock in ipairs(locks_beneath(id, now)) do
    require_token(lock.entry_id, lock.ids, now)
  end
end

local function write_lock(lock)
  call('HSET', P .. 'locks', lock.token, cmsgpack.pack(lock))
end

local function add_lock(lock, is_on_directory)
  write_lock(lock)
  call('SADD', P .. 'l:' .. lock.entry_id, lock.token)
  for _, id in ipairs(lock.ids) do call('SADD', P .. 'b:' .. id, lock.token) end
  if is_on_directory then call('SADD', P .. 'b:' .. lock.entry_id, lock.token) end
end

local function drop_lock(token)
  local stored = call('HGET', P .. 'locks', token)
  if not stored then return end
  local lock = cmsgpack.unpack(stored)
  call('HDEL', P .. 'locks', token)
  call('SREM', P .. 'l:' .. lock.entry_id, token)
  call('SREM', P .. 'b:' .. lock.entry_id, token)
  for _, id in ipairs(lock.ids) do call('SREM', P .. 'b:' .. id, token) end
end

local function drop_tree_locks(record)
  if lock_count() == 0 then return end
  local key = is_directory(record) and 'b:' or 'l:'
  for _, token in ipairs(call('SMEMBERS', P .. key .. id_of(record))) do drop_lock(token) end
end

-- What takes the place of a locked entry is locked in its stead: the lock is the URL's (section 7.6).
local function hand_over_locks(old, new)
  if lock_count() == 0 then return end
  for _, token in ipairs(call('SMEMBERS', P .. 'l:' .. id_of(old))) do
    local lock = cmsgpack.unpack(call('HGET', P .. 'locks', token))
    drop_lock(token)
    lock.entry_id = id_of(new)
    add_lock(lock, is_directory(new))
  end
end
