package diagnosis

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"slices"

	"tapsec/internal/mac"
	"tapsec/sa"
	"tapsec/status"
)

// miss is a near miss: what an SA, or its frames, might have been.
type miss struct {
	cause Cause
	sa    sa.SA
	text  string                                      // "with the key of site-b", in front of "8 of 8 frames verify"
	needs evidence                                    // the least that counts
	half  *uint32                                     // the high half of the number; nil: the frame's own
	edit  func(frame []byte, p packet) ([]byte, bool) // of the frame, before it is judged; nil: none
}

func (m *miss) high(own uint32) uint32 {
	if m.half != nil {
		return *m.half
	}
	return own
}

// wrapped is the same near miss for a frame whose number's low half began anew, if there is one.
func (m *miss) wrapped(x *sample) (miss, bool) {
	next := *m
	high := m.high(x.high()) + 1
	next.half = &high
	return next, m.sa.ESN && high != 0
}

// misses are near misses, the likeliest first.
type misses = iter.Seq[miss]

// chain yields one sequence after the other.
func chain(all ...misses) misses {
	return func(yield func(miss) bool) {
		for _, some := range all {
			for m := range some {
				if !yield(m) {
					return
				}
			}
		}
	}
}

// lazily are those that make makes, once somebody asks for the first.
func lazily(make func() []miss) misses {
	return func(yield func(miss) bool) { slices.Values(make())(yield) }
}

// ofSA are the near misses for a sample that failed on s.
func (d *Case) ofSA(s *sa.SA, x *sample) misses {
	switch {
	case s.Protocol != x.header.Protocol:
		return chain(otherAlgorithms(s, x), d.otherKeys(s, x))
	case x.reason == status.PadBytes || x.reason == status.PadLength:
		return chain(padding(s), d.encryptionKeys(s))
	case x.reason == status.ESPLength: // another cipher has other blocks
		return chain(d.encryptionKeys(s), d.ofICV(s, x))
	}
	return d.ofICV(s, x)
}

// ofICV are those for a wrong ICV.
func (d *Case) ofICV(s *sa.SA, x *sample) misses {
	return chain(otherESN(s, 0, nearHalves), icvLengths(s), salts(s), d.otherSalts(s), keyOrders(s), otherAlgorithms(s, x),
		d.otherKeys(s, x), otherESN(s, nearHalves, farHalves), highHalves(s, x), edits(s, x, d.addresses.list), notEncrypted(s))
}

// ofNone are those for a sample that no SA matched.
func (d *Case) ofNone(x *sample) misses {
	return chain(d.sameSPI(x), d.anyKey(x))
}

// otherESN switches extended numbers off, or on with each high half of a range.
func otherESN(s *sa.SA, from, to uint32) misses {
	return lazily(func() (all []miss) {
		o := *s
		o.ESN = !s.ESN
		if !o.ESN {
			if from == 0 {
				all = append(all, miss{cause: ESN, sa: o, needs: verifies, text: "without extended sequence numbers (esn: false)"})
			}
			return all
		}
		for high := from; high < to; high++ {
			all = append(all, miss{cause: ESN, sa: o, needs: verifies, half: &high,
				text: fmt.Sprintf("with extended sequence numbers (esn: true, seq_high: %d)", high)})
		}
		return all
	})
}

// How far off the high half may be, and how far it is likely to be.
const (
	farHalves  = 32
	nearHalves = 4
)

// highHalves tries other high halves, the nearest first, then the lowest.
func highHalves(s *sa.SA, x *sample) misses {
	return lazily(func() (all []miss) {
		if !s.ESN {
			return
		}
		own := x.high()
		var halves []uint32
		for n := uint32(1); n <= farHalves; n++ {
			halves = append(halves, own+n)
			if n <= own {
				halves = append(halves, own-n)
			}
		}
		for n := range uint32(farHalves) {
			halves = append(halves, n)
		}
		for i, high := range halves {
			if high == own || slices.Contains(halves[:i], high) {
				continue
			}
			all = append(all, miss{cause: ESNHigh, sa: *s, needs: verifies, half: &high,
				text: fmt.Sprintf("with the high half %d instead of %d", high, own)})
		}
		return all
	})
}

// icvLengths tries other lengths of the ICV: those of other suites and, for a MAC, any that
// somebody uses.
func icvLengths(s *sa.SA) misses {
	return lazily(func() (all []miss) {
		for _, n := range icvLens(s) {
			m := miss{cause: ICVLength, sa: *s, needs: verifies,
				text: fmt.Sprintf("with an ICV of %d bits instead of %d", 8*n, 8*s.Suite.ICVLen)}
			if s.Suite.Integrity == sa.HMACSHA256 && n == 12 {
				m.cause = SHA256Draft
			}
			m.sa.Suite.ICVLen = n
			all = append(all, m)
		}
		return all
	})
}

func icvLens(s *sa.SA) (all []int) {
	for _, su := range sa.Suites(s.Protocol) {
		if su.Cipher == s.Suite.Cipher && su.Integrity == s.Suite.Integrity && su.KeyLen == s.Suite.KeyLen {
			all = append(all, su.ICVLen)
		}
	}
	if s.Suite.Integrity != sa.NoIntegrity && s.Suite.Integrity != sa.GMAC {
		if m, err := mac.New(s.Suite, s.IntegrityKey); err == nil {
			for _, n := range []int{8, 10, 12, 16, 20, 24, 28, 32, 48, 64} {
				if n <= m.Size() {
					all = append(all, n)
				}
			}
		}
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(n int) bool { return n == s.Suite.ICVLen })
}

// salted is the key of s that ends in a salt, and a function that copies s with another key
// in its place; nil if there is none.
func salted(s *sa.SA) (key []byte, with func([]byte) sa.SA) {
	switch {
	case s.Suite.SaltLen == 0:
		return nil, nil
	case s.Protocol == sa.AH:
		return s.IntegrityKey.Bytes(), func(b []byte) sa.SA { o := *s; o.IntegrityKey = sa.NewKey(b); return o }
	}
	return s.EncryptionKey.Bytes(), func(b []byte) sa.SA { o := *s; o.EncryptionKey = sa.NewKey(b); return o }
}

// salts puts the salt elsewhere, or another one in its place.
func salts(s *sa.SA) misses {
	return lazily(func() (all []miss) {
		k, with := salted(s)
		if with == nil {
			return
		}
		n := s.Suite.SaltLen
		key, salt := k[:len(k)-n], k[len(k)-n:]
		for _, v := range []struct {
			text string
			key  []byte
		}{
			{"with a salt of zeros in place of the one given", join(key, make([]byte, n))},
			{"with the salt taken from in front of the key", join(k[n:], k[:n])},
			{"with the salt at the end of what was taken for the key", join(salt, key)},
			{"with the bytes of the salt reversed", join(key, reversed(salt))},
			{"with the key's first bytes as its salt", join(key, key[:n])},
			{"with the key's last bytes as its salt", join(key, key[len(key)-n:])},
		} {
			if !bytes.Equal(v.key, k) {
				all = append(all, miss{cause: Salt, sa: with(v.key), needs: verifies, text: v.text})
			}
		}
		return all
	})
}

// otherSalts tries this key with the salts of other SAs.
func (d *Case) otherSalts(s *sa.SA) misses {
	return lazily(func() (all []miss) {
		k, with := salted(s)
		if with == nil {
			return
		}
		n := s.Suite.SaltLen
		for _, o := range d.nearest(s) {
			other, _ := salted(o)
			if len(other) < n || o.Suite.SaltLen != n || bytes.Equal(other[len(other)-n:], k[len(k)-n:]) {
				continue
			}
			all = append(all, miss{cause: Salt, sa: with(join(k[:len(k)-n], other[len(other)-n:])), needs: verifies,
				text: "with its own key and the salt of " + d.called(o)})
		}
		return all
	})
}

func join(a, b []byte) []byte { return append(bytes.Clone(a), b...) }

// keyOrders exchanges the keys, and reverses their bytes. With separate integrity the ICV
// depends on the integrity key alone.
func keyOrders(s *sa.SA) misses {
	return lazily(func() (all []miss) {
		enc, auth := s.EncryptionKey.Bytes(), s.IntegrityKey.Bytes()
		set := func(cause Cause, enc, auth []byte, text string) miss {
			m := miss{cause: cause, sa: *s, needs: verifies, text: text}
			m.sa.EncryptionKey, m.sa.IntegrityKey = sa.NewKey(enc), sa.NewKey(auth)
			return m
		}
		if len(enc) > 0 && len(auth) > 0 {
			both, back := join(enc, auth), join(auth, enc)
			all = append(all, set(SwappedKeys, both[len(auth):], both[:len(auth)], "with the two keys exchanged"),
				set(SwappedKeys, back[:len(enc)], back[len(enc):], "with the two keys exchanged"))
		}
		for _, order := range []struct {
			text string
			of   func([]byte) []byte
		}{{"with the bytes of the key reversed", reversed}, {"with the bytes of each 32-bit word of the key reversed", swapped}} {
			all = append(all, set(KeyOrder, order.of(enc), order.of(auth), order.text))
		}
		return all
	})
}

func reversed(b []byte) []byte {
	b = bytes.Clone(b)
	slices.Reverse(b)
	return b
}

func swapped(b []byte) []byte {
	b = bytes.Clone(b)
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	return b
}

// otherAlgorithms tries the keys with every suite of the frame's protocol that takes keys of
// their lengths. A cipher with separate integrity stays, since the ICV tells nothing about
// it.
func otherAlgorithms(s *sa.SA, x *sample) misses {
	return lazily(func() (all []miss) {
		for _, su := range sa.Suites(x.header.Protocol) {
			if su == s.Suite || su.Integrity != sa.NoIntegrity && su.Protocol == sa.ESP && su.Cipher != s.Suite.Cipher && su.Cipher != sa.Null ||
				su.Cipher == s.Suite.Cipher && su.Integrity == s.Suite.Integrity && su.KeyLen == s.Suite.KeyLen && su.Protocol == s.Protocol {
				continue
			}
			m := miss{cause: OtherAlgorithm, sa: *s, needs: verifies, text: "by " + su.Name + " instead of " + s.Suite.Name}
			if su.Protocol != s.Protocol {
				m.text = fmt.Sprintf("as %s with %s instead of %s", su.Protocol, su.Name, s.Protocol)
			}
			m.sa.Suite, m.sa.Bundle = su, ""
			if refit(&m.sa, s) {
				all = append(all, m)
			}
		}
		return all
	})
}

// refit gives s, which has another suite than its model, the model's keys, and reports whether
// they fit. AES-CCM's salt is one byte shorter than all others.
func refit(s, model *sa.SA) (ok bool) {
	enc, auth := model.EncryptionKey.Bytes(), model.IntegrityKey.Bytes()
	wantEnc, wantAuth := s.Suite.EncryptionKeyLen(), s.Suite.IntegrityKeyLen()
	if s.Suite.Protocol != model.Protocol && len(enc)*len(auth) == 0 && wantEnc*wantAuth == 0 {
		only := join(enc, auth) // one key is what both have
		enc, auth = only[:min(wantEnc, len(only))], only[:min(wantAuth, len(only))]
		ok = len(only) == wantEnc+wantAuth
	} else {
		if s.Suite.Cipher == sa.AESCCM && len(enc) == wantEnc+1 {
			enc = enc[:wantEnc]
		}
		ok = len(enc) == wantEnc && len(auth) == wantAuth
	}
	s.EncryptionKey, s.IntegrityKey = sa.NewKey(enc), sa.NewKey(auth)
	return ok
}

// maxKeys is how many other SAs' keys are tried.
const maxKeys = 256

// nearest are all other SAs, former ones included, those most like s first.
func (d *Case) nearest(s *sa.SA) []*sa.SA {
	rank := func(o *sa.SA) int {
		switch {
		case o.ID() == s.ID():
			return 0
		case o.SPI == s.SPI, o.Dst == s.Dst && o.Src == s.Src:
			return 1
		case o.Dst == s.Src && o.Src == s.Dst:
			return 2
		case o.Suite == s.Suite:
			return 3
		}
		return 4
	}
	others := make([]*sa.SA, 0, len(d.all))
	for _, o := range d.all {
		if !sameKeys(o, s) {
			others = append(others, o)
		}
	}
	slices.SortStableFunc(others, func(a, b *sa.SA) int { return cmp.Compare(rank(a), rank(b)) })
	return others[:min(len(others), maxKeys)]
}

func sameKeys(a, b *sa.SA) bool {
	return a.Suite == b.Suite && a.EncryptionKey.Equal(b.EncryptionKey) && a.IntegrityKey.Equal(b.IntegrityKey)
}

// otherKeys tries the algorithms and keys of other SAs, as they are and with
// extended numbers on or off as in s.
func (d *Case) otherKeys(s *sa.SA, x *sample) misses {
	return lazily(func() (all []miss) {
		for _, o := range d.nearest(s) {
			if o.Protocol != x.header.Protocol {
				continue
			}
			cause := OtherKey
			switch {
			case o.ID() == s.ID():
				cause = FormerKey
			case o.Src == s.Dst && o.Dst == s.Src && o.Src.IsValid():
				cause = SwappedDirection
			}
			all = append(all, d.keyOf(cause, o, s.Mode, s.ESN, x)...)
			if m, ok := d.rekeyed(cause, s, o); ok {
				all = append(all, m)
			}
		}
		return all
	})
}

// rekeyed is s with the keys of o, as far as its algorithms take them: what happens when keys
// are given to the wrong SAs. ok is false if o has the same algorithms, or its key does not
// fit.
func (d *Case) rekeyed(cause Cause, s, o *sa.SA) (m miss, ok bool) {
	m = miss{cause: cause, sa: *s, needs: verifies, text: "with the key of " + d.called(o)}
	if enc := o.EncryptionKey; enc.Len() == s.Suite.EncryptionKeyLen() {
		m.sa.EncryptionKey, ok = enc, s.Suite.Integrity == sa.NoIntegrity
	}
	if auth := o.IntegrityKey; s.Suite.Integrity != sa.NoIntegrity && auth.Len() == s.Suite.IntegrityKeyLen() {
		m.sa.IntegrityKey, ok = auth, true
	}
	return m, ok && o.Suite != s.Suite && s.Protocol == o.Protocol
}

// keyOf tries the key of o, with its own high half and with the sample's.
func (d *Case) keyOf(cause Cause, o *sa.SA, mode sa.Mode, esn bool, x *sample) (all []miss) {
	m := miss{cause: cause, sa: *o, needs: verifies, text: "with the key of " + d.called(o)}
	m.sa.Mode, m.sa.PadCheck = mode, true
	if cause == FormerKey {
		m.text = "with another key that the text gives for this SPI"
	}
	all = append(all, m)
	if high := o.HighHalf(); o.ESN && high != x.high() {
		m.half = &high
		all = append(all, m)
	}
	if o.ESN != esn {
		m.sa.ESN, m.half = esn, nil
		all = append(all, m)
	}
	return all
}

// anyKey tries the key of every SA for a sample whose SPI no SA has.
func (d *Case) anyKey(x *sample) misses {
	like := &sa.SA{Src: x.header.Src, Dst: x.header.Dst, Protocol: x.header.Protocol, SPI: uint32(x.header.SPI)}
	return lazily(func() (all []miss) {
		for _, o := range d.nearest(like) {
			if o.Protocol != x.header.Protocol {
				continue
			}
			cause := UnknownSPI
			if o.SPI == uint32(x.header.SPI) {
				cause = Addresses
			}
			all = append(all, d.keyOf(cause, o, o.Mode, o.ESN, x)...)
		}
		return all
	})
}

// sameSPI tries the SAs that have the sample's SPI, with its addresses and its
// encapsulation.
func (d *Case) sameSPI(x *sample) misses {
	return lazily(func() (all []miss) {
		for _, o := range d.all {
			if o.SPI != uint32(x.header.SPI) || o.Protocol != x.header.Protocol {
				continue
			}
			m := miss{cause: Addresses, sa: *o, needs: verifies,
				text: fmt.Sprintf("by %s, which is %s", d.called(o), route(o.Src, o.Dst))}
			switch {
			case o.Encap != x.header.Encap && o.Encap:
				m.cause, m.text = Encapsulation, fmt.Sprintf("by %s without the encapsulation in UDP that it has", d.called(o))
			case x.header.Encap && !o.InUDP():
				m.cause, m.text = Encapsulation, fmt.Sprintf("by %s, encapsulated in UDP (encap)", d.called(o))
			case o.Src == x.header.Dst && o.Dst == x.header.Src:
				m.cause = SwappedDirection
			}
			all = append(all, m)
			if high := o.HighHalf(); o.ESN && high != 0 {
				m.half = &high
				all = append(all, m)
			}
		}
		return all
	})
}

// padding leaves the pad unchecked. If the cipher has no integrity of its own, only a
// plaintext that makes sense shows that the key was right.
func padding(s *sa.SA) misses {
	m := miss{cause: Padding, sa: *s, needs: opens, text: "with the pad unchecked (pad_check: false)"}
	m.sa.PadCheck = false
	if s.Suite.Integrity != sa.NoIntegrity {
		m.needs = sensible
	}
	return slices.Values([]miss{m})
}

// encryptionKeys tries ciphers and encryption keys when a separate integrity algorithm has
// verified the ICV.
func (d *Case) encryptionKeys(s *sa.SA) misses {
	if s.Suite.Integrity == sa.NoIntegrity {
		return chain()
	}
	return chain(lazily(func() (all []miss) {
		for _, su := range sa.Suites(sa.ESP) {
			k := s.EncryptionKey.Bytes()
			if n := su.EncryptionKeyLen(); su.Integrity != s.Suite.Integrity || su.ICVLen != s.Suite.ICVLen || len(k) < n || su == s.Suite {
				continue
			} else if k = k[:n]; su.Cipher != sa.Null && n < s.Suite.KeyLen {
				continue
			}
			m := miss{cause: EncryptionKey, sa: *s, needs: sensible, text: "decrypted by " + su.Name + " instead of " + s.Suite.Name}
			m.sa.Suite, m.sa.EncryptionKey = su, sa.NewKey(k)
			all = append(all, m)
		}
		return all
	}), lazily(func() []miss { return d.foreignEncryption(s) }))
}

func (d *Case) foreignEncryption(s *sa.SA) (all []miss) {
	add := func(key []byte, text string) {
		m := miss{cause: EncryptionKey, sa: *s, needs: sensible, text: text}
		m.sa.EncryptionKey = sa.NewKey(key)
		all = append(all, m)
	}
	k := s.EncryptionKey.Bytes()
	add(reversed(k), "with the bytes of the encryption key reversed")
	add(swapped(k), "with the bytes of each 32-bit word of the encryption key reversed")
	if auth := s.IntegrityKey.Bytes(); len(auth) >= len(k) {
		add(auth[:len(k)], "with the integrity key as encryption key")
	}
	if _, with := salted(s); with != nil {
		for m := range salts(s) {
			m.cause, m.needs = EncryptionKey, sensible
			all = append(all, m)
		}
	}
	for _, o := range d.nearest(s) {
		if o.Protocol != sa.ESP || o.Suite.Integrity == sa.NoIntegrity {
			continue
		}
		m := miss{cause: EncryptionKey, sa: *s, needs: sensible, text: "with the encryption key of " + d.called(o)}
		su := o.Suite
		su.Integrity, su.AuthLen, su.ICVLen = s.Suite.Integrity, s.Suite.AuthLen, s.Suite.ICVLen
		m.sa.Suite, m.sa.EncryptionKey = su, o.EncryptionKey
		all = append(all, m)
	}
	return all
}
