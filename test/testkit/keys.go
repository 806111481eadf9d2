package testkit

import "tapsec/sa"

// Suite gives an SA a suite, with keys that follow from its SPI.
func Suite(name string) func(*sa.SA) {
	return func(s *sa.SA) {
		su, err := sa.ParseSuite(s.Protocol, name)
		if err != nil {
			panic("testkit: " + err.Error())
		}
		s.Suite, s.EncryptionKey, s.IntegrityKey = su, Key(s.SPI, su.EncryptionKeyLen()), Key(s.SPI+1, su.IntegrityKeyLen())
	}
}

// Key is a key of n bytes.
func Key(seed uint32, n int) sa.Key {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(seed) + byte(i)*7 + 1
	}
	return sa.NewKey(b)
}
