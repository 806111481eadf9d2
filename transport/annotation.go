package transport

import "tapsec/status"

// agrees reports whether an annotation's word and records agree, and fit a frame of
// n bytes (contract, The transport, step 1).
//
//  1. The wire length is the frame's.
//  2. Offsets come in the order of the headers, inside the received bytes.
//  3. Done: something was checked. Next: both portions were. Of a failed one it
//     may be unknown which of the two it is.
//  4. CryptoStatus is that of the first header that failed.
func agrees(t *status.Trailer, n int) bool {
	if n != int(t.WireLen) || t.Omitted > 0 {
		return false
	}
	var checked [status.TransportPortion + 1]bool
	code := status.Success
	for i := range t.N {
		r := &t.Records[i]
		if !fits(r, int(t.WireLen)) || r.State < status.ICVValid || r.State > status.NotProcessed {
			return false
		}
		if r.State != status.NotProcessed {
			checked[r.Portion] = true
		}
		if code == status.Success {
			code = r.Code
		}
		if (r.Code == status.Success) != (r.State == status.ICVValid || r.State == status.NotProcessed) {
			return false
		}
	}
	tunnelDone, unknownDone := checked[status.TunnelPortion], checked[status.NoPortion]
	otherDone := checked[status.TransportPortion] || unknownDone
	want := status.Word(0).WithCode(code)
	if tunnelDone || otherDone {
		want |= status.CryptoDone
	}
	if tunnelDone && otherDone {
		want |= status.NextCryptoDone
	}
	if unknownDone && code == status.Success {
		return false
	}
	return t.Word&^status.SADeleteReq == want
}

// fits reports whether a record's offsets are possible.
func fits(r *status.Record, wireLen int) bool {
	return r.Portion <= status.TransportPortion &&
		r.IP < r.IPsec && r.IPsec <= r.Payload && int(r.Payload)+int(r.PayloadLen) <= wireLen
}
