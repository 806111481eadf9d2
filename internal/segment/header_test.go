package segment

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"tapsec/wire"
)

// finishing is the header of a frame that is not merged.
func finishing(start, place int) Header { return Header{flags: needsSum, start: start, place: place} }

func TestFinish(t *testing.T) {
	s := &shape{tags: []uint16{0x8100}, size: 100}
	want := s.build(t, []byte("to nobody"), 0, true)
	start := len(want) - s.upperSize
	frame := bytes.Clone(want)
	upper := frame[start:]
	clear(upper[6:8])
	pseudo := header{at: 18, v4: true}.pseudo(frame, wire.ProtoUDP) + uint32(len(upper))
	binary.BigEndian.PutUint16(upper[6:], ^wire.Checksum(pseudo, nil))
	left := bytes.Clone(frame)
	(Header{start: start, place: 6}).Finish(frame)
	finishing(start, len(frame)).Finish(frame)
	if !bytes.Equal(frame, left) {
		t.Error("what was not asked for, or is not there, was filled in")
	}
	if finishing(start, 6).Finish(frame); !bytes.Equal(frame, want) {
		t.Errorf("\n%x\n%x", frame, want)
	}
	zero := append(make([]byte, 6), 0xff, 0xff)
	if finishing(0, 6).Finish(zero); zero[6]&zero[7] != 0xff {
		t.Errorf("a checksum of zero says that there is none: %x", zero)
	}
	sctp := []byte("....portsandTAGSSUM?chunk")
	if finishing(12, 8).Finish(sctp[:23]); string(sctp[20:23]) != "chu" {
		t.Errorf("a part of a checksum: %q", sctp)
	}
	finishing(8, 8).Finish(sctp)
	got := binary.LittleEndian.Uint32(sctp[16:])
	clear(sctp[16:20])
	if want := crc32.Checksum(sctp[8:], crc32.MakeTable(crc32.Castagnoli)); got != want {
		t.Errorf("CRC32c %#x, want %#x", got, want)
	}
}

// What a stack leaves open is told by the frame alone, and nothing else is touched: not what is right, not
// what is wrong, and no fragment.
func TestComplete(t *testing.T) {
	for _, s := range []*shape{{size: 100}, {tcp: true, size: 77}, {v6: true, size: 100}, {tcp: true, v6: true, size: 99},
		{size: 1, tags: []uint16{0x88a8, 0x8100}}, {tcp: true, v6: true, size: 50, tags: []uint16{0x8100}}} {
		right := s.build(t, bytes.Repeat([]byte{0xa5}, s.size), 0, true)
		at := network(right)
		p, err := wire.ParseIP(right, at, len(right), right[at]>>4)
		if err != nil {
			t.Fatal(err)
		}
		open, wrong := bytes.Clone(right), bytes.Clone(right)
		wire.PartialSum(open, &p)
		wrong[len(wrong)-1] ^= 1
		padded := append(bytes.Clone(open), "behind the packet"...)
		for what, frame := range map[string][]byte{"open": open, "padded": padded} {
			if !Complete(frame) || !bytes.Equal(frame[:len(right)], right) {
				t.Errorf("%+v, %s: %x", s, what, frame)
			}
		}
		for what, frame := range map[string][]byte{"right": right, "wrong": wrong, "cut short": open[:len(open)-1], "empty": nil, "addresses": right[:at]} {
			before := bytes.Clone(frame)
			if what == "cut short" {
				wire.PartialSum(frame, &p)
				before = bytes.Clone(frame)
			}
			if Complete(frame) || !bytes.Equal(frame, before) {
				t.Errorf("%+v, %s: %x", s, what, frame)
			}
		}
	}
}

// More than 65535 bytes to be cut have a length of zero, and in IPv6 perhaps an option of their own, which
// no piece has.
func TestCutJumbo(t *testing.T) {
	for _, s := range []*shape{{tcp: true, size: 1000, psh: true}, {tcp: true, v6: true, size: 1000}, {tcp: true, v6: true, size: 1000, tags: []uint16{0x8100}}} {
		for _, option := range []bool{false, true} {
			if option && !s.v6 {
				continue
			}
			stream := make([]byte, 90500)
			for i := range stream {
				stream[i] = byte(i >> 4)
			}
			merged := append(s.build(t, stream[:1], 0, true), stream[1:]...)
			h := s.virtio(merged)
			h.start = 14 + 4*len(s.tags) + 20
			at := 14 + 4*len(s.tags)
			if s.v6 {
				h.start += 20
				clear(merged[at+4 : at+6])
			} else {
				clear(merged[at+2 : at+4])
			}
			if option {
				merged = bytes.Join([][]byte{merged[:at+40], {6, 0, 0xc2, 4, 0, 1, 0x61, 0x9c}, merged[at+40:]}, nil)
				merged[at+6] = 0
				h.start += 8
			}
			var c Cutter
			if !c.Begin(h, merged) {
				t.Fatal("refused")
			}
			for i := 0; i < 91; i++ {
				want := s.build(t, stream[i*1000:min(len(stream), (i+1)*1000)], i, i == 90)
				if got := c.Append(nil); !bytes.Equal(got, want) {
					t.Fatalf("piece %d:\n%x\n%x", i, got[:80], want[:80])
				}
			}
			if c.Len() != 0 {
				t.Error("more than there is")
			}
		}
	}
}

// The sender knows the last destination that a routing header names, and its sum is gone by.
func TestCutRouted(t *testing.T) {
	const pseudo = 0xf234
	s := &shape{tcp: true, v6: true, extended: true, size: 100}
	merged := s.build(t, make([]byte, 250), 0, true)
	merged[14+6], merged[14+40+2], merged[14+40+3] = wire.ProtoRouting, 4, 1
	h := s.virtio(merged)
	binary.BigEndian.PutUint16(merged[h.start+16:], ^wire.Checksum(uint32(pseudo+len(merged)-h.start), nil))
	var c Cutter
	if !c.Begin(h, merged) {
		t.Fatal("refused")
	}
	for c.Len() > 0 {
		upper := c.Append(nil)[h.start:]
		if sum := wire.Checksum(uint32(pseudo+len(upper)), upper); sum != 0 {
			t.Errorf("a checksum is off by %#x", sum)
		}
	}
	if h.flags = 0; c.Begin(h, merged) {
		t.Error("nobody says what the sum is over")
	}
}
