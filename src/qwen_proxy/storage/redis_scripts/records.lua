-- Records, what has changed of them, and the log: ARGV[1] names the function. Each call is one step, and `write` checks
-- everything before it changes anything.
--
-- generation  number that grows with each write of a watched record
-- horizon     generation before which it is not known any more what is gone
-- changed     sorted set: watched record, also one that is gone -> generation of its last change
-- gone        sorted set: watched record that is gone -> when it went
-- ends        sorted set: record that lasts a while -> its end
-- index       + kind: sorted set of the ids, all of score 0 and so in order of their bytes
-- record      + kind:id: hash of version, value and, of one that lasts a while, end
-- lines       number that grows with each line of the log
-- topic       + topic: stream of its lines; the id of an entry is its number and -0
--
-- Times are microseconds. In a set a record is its kind, NUL, its id.
local generation, horizon, changed, gone, ends, index, record, lines, topic = unpack(KEYS)
local call = redis.call
local at = now()

local PAGE = 500
-- Past its end a record counts as none, and `sweep` takes it away. For a store that nobody sweeps the server does, later.
local LEFT_FOR_SWEEP_MILLISECONDS = 60000

local function number(text)
    return string.format('%.0f', text)
end

local function is_past(stop)
    return stop and tonumber(stop) <= at
end

-- Version (0 of none), value, end (0 for none), id and kind.
local function get(kind, id)
    local found = call('HMGET', record .. kind .. ':' .. id, 'version', 'value', 'end')
    if not found[1] or is_past(found[3]) then
        return {0, '', 0, id, kind}
    end
    return {tonumber(found[1]), found[2], tonumber(found[3] or 0), id, kind}
end

local function find(kind, after, limit)
    local told, from = {}, '(' .. after
    limit = tonumber(limit)
    while #told < limit do
        local asked = math.min(limit - #told, PAGE)
        local ids = call('ZRANGEBYLEX', index .. kind, from, '+', 'LIMIT', 0, asked)
        for _, id in ipairs(ids) do
            local found = get(kind, id)
            if found[1] > 0 then
                told[#told + 1] = found
            end
        end
        if #ids < asked then
            break
        end
        from = '(' .. ids[#ids]
    end
    return told
end

local function append(name, when, value)
    local line = call('INCR', lines)
    call('XADD', topic .. name, number(line) .. '-0', 'at', when == '' and number(at) or when, 'value', value)
end

local function delete(kind, id)
    call('DEL', record .. kind .. ':' .. id)
    call('ZREM', index .. kind, id)
    call('ZREM', ends, kind .. '\0' .. id)
end

local function put(kind, id, lasts, value)
    local key, member = record .. kind .. ':' .. id, kind .. '\0' .. id
    local old = call('HMGET', key, 'version', 'end')
    local version = 1
    if old[1] and not is_past(old[2]) then
        version = old[1] + 1
    end
    call('HSET', key, 'version', version, 'value', value)
    if lasts ~= '' then
        call('HSET', key, 'end', number(at + lasts))
        call('PEXPIRE', key, number(math.ceil(lasts / 1000) + LEFT_FOR_SWEEP_MILLISECONDS))
        call('ZADD', ends, number(at + lasts), member)
    elseif old[2] or not old[1] then
        call('HDEL', key, 'end')
        call('PERSIST', key)
        call('ZREM', ends, member)
    end
    if not old[1] then
        call('ZADD', index .. kind, 0, id)
    end
    return version
end

local function version_of(kind, id)
    local found = call('HMGET', record .. kind .. ':' .. id, 'version', 'end')
    return found[1] and not is_past(found[2]) and found[1] or '0'
end

-- Seven of ARGV a change: what, kind or topic, id, '1' where it is watched, the version expected or '', how long it
-- lasts or, of a line, when it was, or '', value. Gives the place of the change that conflicts, from 1, or 0; the generation; the versions put.
local function write(channel)
    local is_watched = false
    for i = 3, #ARGV, 7 do
        if ARGV[i + 4] ~= '' and ARGV[i + 4] ~= version_of(ARGV[i + 1], ARGV[i + 2]) then
            return {(i - 3) / 7 + 1, 0, {}}
        end
        is_watched = is_watched or ARGV[i + 3] == '1'
    end
    local current = is_watched and call('INCR', generation) or tonumber(call('GET', generation) or 0)
    local versions = {}
    for i = 3, #ARGV, 7 do
        local what, kind, id = ARGV[i], ARGV[i + 1], ARGV[i + 2]
        if what == 'append' then
            append(kind, ARGV[i + 5], ARGV[i + 6])
        elseif what == 'put' then
            versions[#versions + 1] = put(kind, id, ARGV[i + 5], ARGV[i + 6])
        else
            delete(kind, id)
        end
        if ARGV[i + 3] == '1' then
            local member = kind .. '\0' .. id
            call('ZADD', changed, current, member)
            if what == 'put' then
                call('ZREM', gone, member)
            else
                call('ZADD', gone, number(at), member)
            end
        end
    end
    if is_watched then
        redis.pcall('PUBLISH', channel, current) -- who may not use channels, asks each second
    end
    return {0, current, versions}
end

-- The generation, whether it is all, and what `get` gives of each.
local function changes(since, most)
    local current = tonumber(call('GET', generation) or 0)
    local behind = '(' .. since
    since = tonumber(since)
    if
        since > current
        or since < tonumber(call('GET', horizon) or 0)
        or call('ZCOUNT', changed, behind, '+inf') > tonumber(most)
    then
        return {current, false, {}}
    end
    local told = {}
    for _, member in ipairs(call('ZRANGEBYSCORE', changed, behind, '+inf')) do
        told[#told + 1] = get(string.match(member, '^(%Z*)%z(.*)$'))
    end
    return {current, true, told}
end

-- A page of what has expired, and of the traces from before `traces_before`; whether there may be more.
local function sweep(traces_before)
    local expired = call('ZRANGEBYSCORE', ends, '-inf', number(at), 'LIMIT', 0, PAGE)
    for _, member in ipairs(expired) do
        delete(string.match(member, '^(%Z*)%z(.*)$'))
        if call('ZSCORE', changed, member) then
            call('ZADD', gone, number(at), member)
        end
    end
    local traces = call('ZRANGEBYSCORE', gone, '-inf', number(at - traces_before), 'LIMIT', 0, PAGE)
    local forgotten = tonumber(call('GET', horizon) or 0)
    for _, member in ipairs(traces) do
        forgotten = math.max(forgotten, tonumber(call('ZSCORE', changed, member) or 0))
        call('ZREM', changed, member)
        call('ZREM', gone, member)
    end
    if #traces > 0 then
        call('SET', horizon, number(forgotten))
    end
    return #expired == PAGE or #traces == PAGE
end

-- The newest lines before the number, or before none ('+'): number, time, value each.
local function log(name, before, limit)
    local told = {}
    local from = before == '+' and '+' or number(before - 1) .. '-0'
    for _, line in ipairs(call('XREVRANGE', topic .. name, from, '-', 'COUNT', limit)) do
        told[#told + 1] = {tonumber(string.match(line[1], '^%d+')), tonumber(line[2][2]), line[2][4]}
    end
    return told
end

-- Of a page of the lines behind `after`, those from before a time go. Gives the last entry of a whole page, else ''.
local function prune_log(name, before, after)
    local page = call('XRANGE', topic .. name, after == '' and '-' or '(' .. after, '+', 'COUNT', PAGE)
    for _, line in ipairs(page) do
        if tonumber(line[2][2]) < tonumber(before) then
            call('XDEL', topic .. name, line[1])
        end
    end
    return #page == PAGE and page[PAGE][1] or ''
end

-- A page of the ids behind `after`: how many records are missing that nobody deleted, and the last id of the page or ''.
local function check(kind, after)
    local missing = 0
    local ids = call('ZRANGEBYLEX', index .. kind, '(' .. after, '+', 'LIMIT', 0, PAGE)
    for _, id in ipairs(ids) do
        local is_there = call('EXISTS', record .. kind .. ':' .. id) == 1
        if not is_there and not call('ZSCORE', ends, kind .. '\0' .. id) then
            missing = missing + 1
        end
    end
    return {missing, #ids == PAGE and ids[PAGE] or ''}
end

-- Every key that begins with the prefix of the pattern. The generation goes on, so that readers learn of it.
local function erase(channel, pattern)
    local current = tonumber(call('GET', generation) or 0) + 1
    local cursor = '0'
    repeat
        local page = call('SCAN', cursor, 'MATCH', pattern, 'COUNT', 1000)
        cursor = page[1]
        for _, key in ipairs(page[2]) do
            call('UNLINK', key)
        end
    until cursor == '0'
    call('SET', generation, number(current))
    call('SET', horizon, number(current))
    redis.pcall('PUBLISH', channel, current)
    return current
end

local functions = {
    get = get,
    find = find,
    write = write,
    changes = changes,
    sweep = sweep,
    log = log,
    prune_log = prune_log,
    check = check,
    erase = erase,
}
return cmsgpack.pack(functions[ARGV[1]](ARGV[2], ARGV[3], ARGV[4]))
