// Package status is the account of a frame's fate: the word that NDIS defines
// for IPsec task offload, the one list of reasons, and the trailer that carries
// both after the frame.
//
// It holds no state and does no I/O. The NIC writes what is declared here; the transport
// and every tool (capture, replay, counters) read it. Nothing else passes between them.
package status

import "fmt"

// Code is the CryptoStatus, one value for a whole frame, as NDIS numbers it
// (NDIS_IPSEC_OFFLOAD_V1_NET_BUFFER_LIST_INFO, and V2).
type Code uint16

// The values of CryptoStatus.
const (
	Success                Code = iota // decrypted where needed, every ICV checked was valid
	GenericError                       // failed, reason not given
	TransportAHAuthFailed              // AH ICV of the transport portion is wrong
	TransportESPAuthFailed             // ESP ICV of the transport portion is wrong
	TunnelAHAuthFailed                 // AH ICV of the tunnel portion is wrong
	TunnelESPAuthFailed                // ESP ICV of the tunnel portion is wrong
	InvalidPacketSyntax                // a length is invalid
	InvalidProtocol                    // the IPsec protocols of the SA are not the ones found in the frame
	NumCodes               = iota
)

var codeNames = [NumCodes]string{
	"CRYPTO_SUCCESS",
	"CRYPTO_GENERIC_ERROR",
	"CRYPTO_TRANSPORT_AH_AUTH_FAILED",
	"CRYPTO_TRANSPORT_ESP_AUTH_FAILED",
	"CRYPTO_TUNNEL_AH_AUTH_FAILED",
	"CRYPTO_TUNNEL_ESP_AUTH_FAILED",
	"CRYPTO_INVALID_PACKET_SYNTAX",
	"CRYPTO_INVALID_PROTOCOL",
}

// String gives the name that NDIS has for the code.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("CRYPTO_UNKNOWN_%d", uint16(c))
}

// Word is the 32 bits in which NDIS hands a frame's result to the transport,
// little-endian in the trailer:
//
//	bit 0      SaDeleteReq     the NIC asks for the SA to be deleted
//	bit 1      CryptoDone      at least one IPsec payload was checked
//	bit 2      NextCryptoDone  tunnel and transport portion were both checked
//	bits 3-15  zero
//	bits 16-31 CryptoStatus    a Code
//
// The zero Word says that the NIC left the frame alone; it never says that the
// frame is good. Ask Verified for that.
type Word uint32

// The bits of a Word.
const (
	SADeleteReq    Word = 1 << 0
	CryptoDone     Word = 1 << 1
	NextCryptoDone Word = 1 << 2
)

// Done reports whether the NIC checked at least one IPsec payload of the frame.
func (w Word) Done() bool { return w&CryptoDone != 0 }

// Next reports whether the NIC checked both the tunnel and the transport portion.
func (w Word) Next() bool { return w&NextCryptoDone != 0 }

// DeleteSA reports whether the NIC asks for the frame's SA to be deleted.
func (w Word) DeleteSA() bool { return w&SADeleteReq != 0 }

// Code is the word's CryptoStatus. Success alone does not mean that the frame is good: see
// Verified.
func (w Word) Code() Code { return Code(w >> 16) }

// WithCode returns w with c as its CryptoStatus.
func (w Word) WithCode(c Code) Word { return w&0xffff | Word(c)<<16 }

// Verified reports whether the NIC checked that many IPsec portions, one or two,
// and found them all good. It panics for any other number.
func (w Word) Verified(portions int) bool {
	switch portions {
	case 1:
		return w.Done() && w.Code() == Success
	case 2:
		return w.Done() && w.Next() && w.Code() == Success
	}
	panic("status: a frame has one or two IPsec portions")
}

// String gives the word as the contract writes it: eight hexadecimal digits.
func (w Word) String() string { return fmt.Sprintf("%08x", uint32(w)) }
