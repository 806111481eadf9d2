package diagnosis

import "tapsec/internal/reason"

// Cause is why the frames of an SA fail, or are not what they seem. Its name and
// docs/diagnosis.md do not change; numbers have no meaning outside.
type Cause uint8

// The causes.
const (
	OtherKey Cause = iota + 1
	FormerKey
	SwappedDirection
	SwappedKeys
	Salt
	KeyOrder
	ICVLength
	SHA256Draft
	OtherAlgorithm
	EncryptionKey
	Padding
	ESN
	ESNHigh
	UnknownSPI
	Addresses
	Encapsulation
	Mode
	NATUnderAH
	EthernetPadding
	AHChecksum
	NATChecksum
	ChecksumOffload
	Cut
	NotEncrypted
	NotShown
	ShownThough
	Damaged
	NothingFound
)

var causes = reason.New[Cause]("diagnosis", []reason.Text{
	OtherKey:         {"other-key", "the key of another SA verifies the frames"},
	FormerKey:        {"former-key", "a key verifies them that the text gives for the same SPI and addresses, before or after the one in use"},
	SwappedDirection: {"swapped-direction", "the SA is that of the other direction: its key, or its addresses"},
	SwappedKeys:      {"swapped-keys", "encryption and integrity key stand in each other's place"},
	Salt:             {"salt", "the salt is missing, stands in front of the key, is reversed, or is another SA's"},
	KeyOrder:         {"key-order", "the bytes of the key stand in another order"},
	ICVLength:        {"icv-length", "the ICV is truncated to another length"},
	SHA256Draft:      {"sha256-96", "the ICV of HMAC-SHA-256 has the 96 bits of the draft, not the 128 of RFC 4868"},
	OtherAlgorithm:   {"other-algorithm", "another algorithm verifies them with the same key"},
	EncryptionKey:    {"encryption-key", "the ICV is good, but the plaintext makes no sense: encryption key or cipher are others"},
	Padding:          {"padding", "the sender pads with other bytes than 1, 2, 3"},
	ESN:              {"esn", "the sender counts with extended sequence numbers and the SA does not, or the reverse"},
	ESNHigh:          {"esn-high", "the high half of the extended sequence number is another one"},
	UnknownSPI:       {"unknown-spi", "no SA has the SPI, but the key of one verifies the frames"},
	Addresses:        {"addresses", "the SA has other addresses than the frames, and its key verifies them"},
	Encapsulation:    {"encapsulation", "the frames are encapsulated in UDP and the SA is not, or the reverse"},
	Mode:             {"mode", "what the SA protects is that of the other mode"},
	NATUnderAH:       {"nat-under-ah", "somebody changed addresses that AH covers"},
	EthernetPadding:  {"ethernet-padding", "the IP length counts padding of the Ethernet frame as payload"},
	AHChecksum:       {"ah-checksum", "AH was computed over another TCP or UDP checksum than that of the frame"},
	NATChecksum:      {"nat-checksum", "the checksum inside is for other addresses: there is a NAT on the way"},
	ChecksumOffload:  {"checksum-offload", "the checksum inside is unfinished: a NIC was to compute it"},
	Cut:              {"cut", "the ends of the frames were not captured"},
	NotEncrypted:     {"not-encrypted", "nothing is encrypted: the frames were captured before the NIC did it, or sealed with NULL"},
	NotShown:         {"not-shown", "the host that captured opened other frames, and never these"},
	ShownThough:      {"shown-though-failed", "the host that captured shows an opened packet behind frames that fail here"},
	Damaged:          {"damaged", "some frames of a good SA fail: they were damaged on the way, or forged"},
	NothingFound:     {"nothing-found", "none of the near misses verifies"},
})

// String is the short name.
func (c Cause) String() string { return causes.Name(c) }

// Sentence says what the cause is.
func (c Cause) Sentence() string { return causes.Sentence(c) }
