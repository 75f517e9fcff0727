-- The guard: what may be deleted, asked by every script through which chunks and replicas leave the cluster.
--
-- A chunk that a chunkserver holds and the table does not name is an orphan, written by an upload that was never
-- committed; or it is proof that this metadata is older than the chunks (a restored copy, writes that Redis lost).
-- Handles tell which: those above next_handle and those in the gaps of `lives` were never given out by this metadata.
-- So nothing is deleted after another Redis process took over (a new gap) until all chunkservers have reported
-- (`lives_checked`), nor while `gc_stopped` stands, which only a person takes away; unknown chunks up to the last handle
-- of that time (`gc_accepted`) are orphans then.

local function number(name) return tonumber(call('GET', P .. name) or 0) end

-- Which Redis process this is.
local function own_run_id() return string.match(call('INFO', 'server'), 'run_id:(%x+)') end

-- Handles from the last to before `first` are left out for ever. Adjacent gaps are one.
local function note_gap(last, first)
  local newest = call('ZREVRANGE', P .. 'lives', 0, 0)[1]
  local gap_end, gap_start = string.match(newest or '', '(%d+):(%d+)')
  local from = last + 1
  if newest and tonumber(gap_start) == from then
    from = tonumber(gap_end)
    call('ZREM', P .. 'lives', newest)
  end
  call('ZADD', P .. 'lives', first, string.format('%.0f:%.0f', from, first))
end

-- The gap in which a handle lies or that comes next behind it.
local function gap_behind(handle) return call('ZRANGEBYSCORE', P .. 'lives', '(' .. handle, '+inf', 'LIMIT', 0, 1)[1] end

local function was_given_out(handle)
  if handle > number('next_handle') then return false end
  local gap = gap_behind(handle)
  return not gap or handle < tonumber(string.match(gap, '^(%d+)'))
end

-- Where the newest gap ends: names the life of Redis that began there.
local function newest_life() return tonumber(call('ZREVRANGE', P .. 'lives', 0, 0, 'WITHSCORES')[2] or 0) end

local function may_delete()
  return call('EXISTS', P .. 'gc_stopped') == 0 and newest_life() <= number('lives_checked')
end

local function stop_deleting(reason)
  write_even_when_full()
  call('SET', P .. 'gc_stopped', cmsgpack.pack({since_ms = now_ms(), reason = reason}), 'NX')
end
