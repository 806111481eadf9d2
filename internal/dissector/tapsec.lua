-- The verdict that a NIC of tapsec writes behind each frame (docs/trailer.md), for Wireshark
-- and tshark: word, reason and records, as fields that one can filter by, and what the NIC has
-- opened, dissected. Made by `tapsec dissector print`; names are those of that version.

local tapsec = Proto("tapsec", "tapsec verdict")

-- BEGIN NAMES
local codes, reasons, sentences, alone = {}, {}, {}, {}
-- END NAMES

local portions = {[0] = "auto", [1] = "tunnel", [2] = "transport"}
local protocols = {[50] = "esp", [51] = "ah"}
local states = {[1] = "ICV valid", [2] = "failed at or before the ICV", [3] = "failed behind a valid ICV", [4] = "not processed"}
local forms = {[0] = "inplace", [1] = "decap"}

local base_length, record_length = 44, 40
local bits = rawget(_G, "bit32") or rawget(_G, "bit") or require("bit")

local f = {
  word = ProtoField.uint32("tapsec.word", "Word", base.HEX),
  done = ProtoField.bool("tapsec.crypto_done", "CryptoDone", 32, nil, 0x2),
  next = ProtoField.bool("tapsec.next_crypto_done", "NextCryptoDone", 32, nil, 0x4),
  delete = ProtoField.bool("tapsec.sa_delete_req", "SaDeleteReq", 32, nil, 0x1),
  status = ProtoField.uint16("tapsec.status", "CryptoStatus", base.DEC, codes),
  reason = ProtoField.uint16("tapsec.reason", "Reason", base.DEC, reasons),
  name = ProtoField.string("tapsec.reason.name", "Reason's name"),
  sentence = ProtoField.string("tapsec.sentence", "Why"),
  verdict = ProtoField.string("tapsec.verdict", "Verdict"),
  form = ProtoField.uint8("tapsec.form", "Form", base.DEC, forms),
  removed = ProtoField.uint8("tapsec.removed", "Portions removed"),
  records = ProtoField.uint8("tapsec.records", "Records"),
  omitted = ProtoField.uint8("tapsec.omitted", "Records omitted"),
  queue = ProtoField.uint16("tapsec.queue", "Queue"),
  wire_length = ProtoField.uint32("tapsec.wire_length", "Wire length"),
  ordinal = ProtoField.uint64("tapsec.ordinal", "Number on its queue"),
  received = ProtoField.absolute_time("tapsec.received", "Received", base.UTC),
  crc = ProtoField.uint32("tapsec.crc", "CRC-32C", base.HEX),
  record = ProtoField.bytes("tapsec.record", "Record"),
  portion = ProtoField.uint8("tapsec.portion", "Portion", base.DEC, portions),
  protocol = ProtoField.uint8("tapsec.protocol", "Protocol", base.DEC, protocols),
  spi = ProtoField.uint32("tapsec.spi", "SPI", base.HEX),
  seq = ProtoField.uint64("tapsec.seq", "Sequence number"),
  handle = ProtoField.uint32("tapsec.handle", "Handle of the SA"),
  state = ProtoField.uint8("tapsec.state", "State", base.DEC, states),
  record_status = ProtoField.uint8("tapsec.record.status", "CryptoStatus of this header", base.DEC, codes),
  record_reason = ProtoField.uint16("tapsec.record.reason", "Reason of this header", base.DEC, reasons),
  ip_offset = ProtoField.uint16("tapsec.ip_offset", "Offset of the IP header"),
  ipsec_offset = ProtoField.uint16("tapsec.ipsec_offset", "Offset of the AH or ESP header"),
  payload_offset = ProtoField.uint16("tapsec.payload_offset", "Offset of the payload"),
  payload_length = ProtoField.uint16("tapsec.payload_length", "Length of the payload"),
  iv_length = ProtoField.uint8("tapsec.iv_length", "Length of the IV"),
  pad_length = ProtoField.uint8("tapsec.pad_length", "Pad length"),
  icv_length = ProtoField.uint8("tapsec.icv_length", "Length of the ICV"),
  next_header = ProtoField.uint8("tapsec.next_header", "Next header"),
  record_delete = ProtoField.bool("tapsec.record.sa_delete_req", "Deletion of this SA is asked for", 8, nil, 0x1),
}
tapsec.fields = f

local e = {
  failed = ProtoExpert.new("tapsec.failed", "An IPsec check failed", expert.group.SECURITY, expert.severity.ERROR),
  alone = ProtoExpert.new("tapsec.left_alone", "IPsec that nobody checked", expert.group.SECURITY, expert.severity.NOTE),
  delete = ProtoExpert.new("tapsec.delete", "The NIC asks for the SA's deletion", expert.group.SEQUENCE, expert.severity.NOTE),
  crc = ProtoExpert.new("tapsec.bad", "A trailer whose CRC or lengths are wrong", expert.group.CHECKSUM, expert.severity.WARN),
}
tapsec.experts = {e.failed, e.alone, e.delete, e.crc}

local crc_table = {}
for i = 0, 255 do
  local c = i
  for _ = 1, 8 do
    local low = bits.band(c, 1)
    c = bits.rshift(c, 1)
    if low == 1 then c = bits.bxor(c, 0x82f63b78) end
  end
  crc_table[i] = c
end

-- crc32c is the Castagnoli CRC of n bytes from an offset on.
local function crc32c(tvb, at, n)
  local c = bits.bnot(0)
  local bytes = tvb:bytes(at, n)
  for i = 0, n - 1 do
    c = bits.bxor(bits.rshift(c, 8), crc_table[bits.band(bits.bxor(c, bytes:get_index(i)), 0xff)])
  end
  return bits.bnot(c) % 0x100000000
end

-- trailer is the length of the trailer that the buffer ends in, or nil.
local function trailer(tvb)
  local n = tvb:len()
  if tvb:reported_len() ~= n or n < base_length then return nil end
  local base = n - base_length
  if tvb(base + 40, 4):string() ~= "TSEC" or tvb(base + 34, 1):uint() ~= 1 then return nil end
  local length = tvb(base + 32, 2):le_uint()
  if length < base_length or length > n then return nil end
  return length
end

-- verdict is what people call the outcome.
local function verdict(word, reason)
  local status = bits.rshift(word, 16)
  if status % 0x100000000 ~= 0 then return "FAILED" end
  if bits.band(word, 4) ~= 0 then return "good, both" end
  if bits.band(word, 2) ~= 0 then return "good" end
  return "left alone"
end

-- add_record adds one record's fields and returns what there is to dissect of it.
local function add_record(tree, r)
  local spi, seq = r(4, 4):le_uint(), r(8, 8):le_uint64()
  local title = string.format("%s %s, SPI 0x%08x, number %s: %s", portions[r(2, 1):uint()] or "unknown",
    protocols[r(3, 1):uint()] or "unknown", spi, tostring(seq), reasons[r(22, 2):le_uint()] or "unknown")
  local t = tree:add(f.record, r(0, record_length))
  t:set_text(title)
  t:add(f.portion, r(2, 1))
  t:add(f.protocol, r(3, 1))
  t:add_le(f.spi, r(4, 4))
  t:add_le(f.seq, r(8, 8))
  t:add_le(f.handle, r(16, 4))
  t:add(f.state, r(20, 1))
  t:add(f.record_status, r(21, 1))
  t:add_le(f.record_reason, r(22, 2))
  t:add_le(f.ip_offset, r(24, 2))
  t:add_le(f.ipsec_offset, r(26, 2))
  t:add_le(f.payload_offset, r(28, 2))
  t:add_le(f.payload_length, r(30, 2))
  t:add(f.iv_length, r(32, 1))
  t:add(f.pad_length, r(33, 1))
  t:add(f.icv_length, r(34, 1))
  t:add(f.next_header, r(35, 1))
  t:add(f.record_delete, r(36, 1))
  return {portion = r(2, 1):uint(), protocol = r(3, 1):uint(), state = r(20, 1):uint(),
    at = r(28, 2):le_uint(), length = r(30, 2):le_uint(), next = r(35, 1):uint()}
end

-- opened dissects what an ESP header that verified had protected, which lies in the frame.
local function opened(tvb, pinfo, root, o)
  if o.protocol ~= 50 or o.state ~= 1 or o.length == 0 or o.at + o.length > tvb:len() then return end
  local inner = tvb(o.at, o.length):tvb()
  local by = DissectorTable.get("ip.proto")
  local info = tostring(pinfo.cols.info)
  by:try(o.next, inner, pinfo, root)
  pinfo.cols.info:set(info)
end

function tapsec.dissector(tvb, pinfo, root)
  local length = trailer(tvb)
  if not length then return end
  local start, base = tvb:len() - length, tvb:len() - base_length
  local b = tvb(base, base_length)
  local word, reason = b(0, 4):le_uint(), b(4, 2):le_uint()
  local tree = root:add(tapsec, tvb(start, length))
  if crc32c(tvb, start, length - 8) ~= b(36, 4):le_uint() then
    tree:add_proto_expert_info(e.crc)
    return
  end
  local name, said = reasons[reason] or ("reason-" .. reason), verdict(word, reason)
  tree:set_text("tapsec: " .. said .. ", " .. (sentences[reason] or name))
  tree:add(f.verdict, said):set_generated()
  local w = tree:add_le(f.word, b(0, 4))
  w:add_le(f.done, b(0, 4))
  w:add_le(f.next, b(0, 4))
  w:add_le(f.delete, b(0, 4))
  w:add_le(f.status, b(2, 2))
  tree:add_le(f.reason, b(4, 2))
  tree:add(f.name, name):set_generated()
  tree:add(f.sentence, sentences[reason] or name):set_generated()
  tree:add(f.form, b(6, 1))
  tree:add(f.removed, b(7, 1))
  tree:add(f.records, b(8, 1))
  tree:add(f.omitted, b(9, 1))
  tree:add_le(f.queue, b(10, 2))
  tree:add_le(f.wire_length, b(12, 4))
  tree:add_le(f.ordinal, b(16, 8))
  local ns = b(24, 8):le_int64()
  local second = Int64.new(1000000000)
  tree:add(f.received, b(24, 8), NSTime.new((ns / second):tonumber(), (ns % second):tonumber()))
  tree:add_le(f.crc, b(36, 4))

  local at, all = start, {}
  while at + 2 <= base do
    local n = tvb(at + 1, 1):uint()
    if n < 2 or at + n > base then
      tree:add_proto_expert_info(e.crc)
      break
    end
    if tvb(at, 1):uint() == 1 and n == record_length then
      all[#all + 1] = add_record(tree, tvb(at, n))
    end
    at = at + n
  end
  if said == "FAILED" then
    tree:add_proto_expert_info(e.failed, sentences[reason] or name)
  elseif said == "left alone" and not alone[reason] then
    tree:add_proto_expert_info(e.alone, sentences[reason] or name)
  end
  if bits.band(word, 1) ~= 0 then tree:add_proto_expert_info(e.delete) end
  pinfo.cols.info:prepend("[" .. said .. ": " .. name .. "] ")
  if b(6, 1):uint() == 0 then
    for _, o in ipairs(all) do opened(tvb, pinfo, root, o) end
  end
end

register_postdissector(tapsec)

-- What stands behind the IP packet is ours, and neither a checksum nor another's trailer. Where
-- the IP length is wrong that is less than all of it.
local owner = Proto("tapsec_trailer", "tapsec trailer")
owner:register_heuristic("eth.trailer", function(tvb)
  local n = tvb:len()
  return n >= 4 and tvb(n - 4, 4):string() == "TSEC"
end)
