package diagnosis

// Cause is why the frames of an SA fail, or are not what they seem. Its names, and what stands behind them
// here, are those of docs/diagnosis.md.
type Cause string

// The causes.
const (
	OtherKey         Cause = "other-key"           // the key of another SA verifies the frames
	FormerKey        Cause = "former-key"          // a key verifies them that the text gives for the same SPI and addresses, before or after the one in use
	SwappedDirection Cause = "swapped-direction"   // the SA is that of the other direction: its key, or its addresses
	SwappedKeys      Cause = "swapped-keys"        // encryption and integrity key stand in each other's place
	Salt             Cause = "salt"                // the salt is missing, stands in front of the key, is reversed, or is another SA's
	KeyOrder         Cause = "key-order"           // the bytes of the key stand in another order
	ICVLength        Cause = "icv-length"          // the ICV is truncated to another length
	SHA256Draft      Cause = "sha256-96"           // the ICV of HMAC-SHA-256 has the 96 bits of the draft, not the 128 of RFC 4868
	OtherAlgorithm   Cause = "other-algorithm"     // another algorithm verifies them with the same key
	EncryptionKey    Cause = "encryption-key"      // the ICV is good, but the plaintext makes no sense: encryption key or cipher are others
	Padding          Cause = "padding"             // the sender pads with other bytes than 1, 2, 3
	ESN              Cause = "esn"                 // the sender counts with extended sequence numbers and the SA does not, or the reverse
	ESNHigh          Cause = "esn-high"            // the high half of the extended sequence number is another one
	UnknownSPI       Cause = "unknown-spi"         // no SA has the SPI, but the key of one verifies the frames
	Addresses        Cause = "addresses"           // the SA has other addresses than the frames, and its key verifies them
	Encapsulation    Cause = "encapsulation"       // the frames are encapsulated in UDP and the SA is not, or the reverse
	Mode             Cause = "mode"                // what the SA protects is that of the other mode
	NATUnderAH       Cause = "nat-under-ah"        // somebody changed addresses that AH covers
	EthernetPadding  Cause = "ethernet-padding"    // the IP length counts padding of the Ethernet frame as payload
	AHChecksum       Cause = "ah-checksum"         // AH was computed over another TCP or UDP checksum than that of the frame
	NATChecksum      Cause = "nat-checksum"        // the checksum inside is for other addresses: there is a NAT on the way
	ChecksumOffload  Cause = "checksum-offload"    // the checksum inside is unfinished: a NIC was to compute it
	Cut              Cause = "cut"                 // the ends of the frames were not captured
	NotEncrypted     Cause = "not-encrypted"       // nothing is encrypted: the frames were captured before the NIC did it, or sealed with NULL
	NotShown         Cause = "not-shown"           // the host that captured opened other frames, and never these
	ShownThough      Cause = "shown-though-failed" // the host that captured shows an opened packet behind frames that fail here
	Damaged          Cause = "damaged"             // some frames of a good SA fail: they were damaged on the way, or forged
	NothingFound     Cause = "nothing-found"       // none of the near misses verifies
)
