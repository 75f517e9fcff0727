-- prelude: script tree locks content view
-- One entry with whatever else was asked for. The only script that puts overflowed extents back into the record.

return run(function()
  local place = resolve(request.names)
  must_exist(place)
  local record, extents = place.record, ''
  if not is_directory(record) then extents = read_extents(record) end
  local locks = {}
  if request.with_locks and lock_count() > 0 then locks = covering_locks(id_of(record), place.ids, now_ms()) end
  local handles = {}
  if request.with_locations then append_handles(handles, extents, LOCATED_EXTENTS_MAX) end
  local extra = pack_extra(record, read_replicas(handles), locks)
  if has_flag(record, OVERFLOW) then record = with_flag(record, OVERFLOW, false) .. extents end
  return {'', place.name, handed_out(record), extra}
end)
