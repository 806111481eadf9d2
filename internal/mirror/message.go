package mirror

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"tapsec/keys"
	"tapsec/sa"
)

// kind says what a message from the kernel is about.
type kind int

const (
	other     kind = iota // nothing that changes an SA
	isThere               // a state exists
	isUpdated             // an update was requested: a larval state takes it over, any other keeps its keys and mode
	isGone                // a state is deleted, or its hard lifetime is over
	isMoved               // several states may have changed: only a dump tells which
	dumped                // the end of a dump
	refused               // the answer to a request is an error
	unread                // it cannot be read
)

// message is a message from the kernel. id and state are set if it is about a state.
type message struct {
	kind    kind
	port    uint32 // of the socket that asked, or that made the change
	request uint32 // its number
	partial bool   // the states changed during the dump
	id      id
	state   keys.State
	usage   Usage
	counted bool  // usage is set
	err     error // with refused and unread
}

// id identifies a state: no two states of a kernel share it.
type id struct {
	protocol   uint8
	spi        uint32
	dst        netip.Addr
	mark, mask uint32
}

// headerLen is that of struct nlmsghdr: length, type, flags, sequence number and port,
// in the machine's byte order.
const headerLen = unix.SizeofNlMsghdr

var errShort = errors.New("a message from the kernel is shorter than it says")

// split gives the messages of a datagram (netlink(7)). After an impossible length, the
// rest is one message that cannot be read.
func split(datagram []byte) (all []message) {
	for len(datagram) > 0 {
		length := 0
		if len(datagram) >= headerLen {
			length = int(binary.NativeEndian.Uint32(datagram))
		}
		if length < headerLen || length > len(datagram) {
			return append(all, message{kind: unread, err: errShort})
		}
		all = append(all, read(datagram[:length]))
		datagram = datagram[min(aligned(length), len(datagram)):]
	}
	return all
}

// aligned rounds a length up to four bytes, as for messages and attributes.
func aligned(n int) int { return (n + 3) &^ 3 }

// read reads a message with its header.
func read(b []byte) (m message) {
	var err error
	flags, body := binary.NativeEndian.Uint16(b[6:]), b[headerLen:]
	m.request, m.port = binary.NativeEndian.Uint32(b[8:]), binary.NativeEndian.Uint32(b[12:])
	m.partial = flags&unix.NLM_F_DUMP_INTR != 0
	switch typ := binary.NativeEndian.Uint16(b[4:]); typ {
	case unix.NLMSG_DONE:
		m.kind = dumped
	case unix.NLMSG_ERROR:
		err = m.answer(body)
	case nl.XFRM_MSG_NEWSA, nl.XFRM_MSG_UPDSA:
		m.kind = map[uint16]kind{nl.XFRM_MSG_NEWSA: isThere, nl.XFRM_MSG_UPDSA: isUpdated}[typ]
		err = m.usersa(body, nl.SizeofXfrmUsersaInfo)
	case nl.XFRM_MSG_DELSA:
		m.kind = isGone
		err = m.deleted(body)
	case nl.XFRM_MSG_EXPIRE:
		err = m.expired(body)
	case nl.XFRM_MSG_FLUSHSA, nl.XFRM_MSG_MIGRATE:
		m.kind = isMoved
	}
	if err != nil {
		m.kind, m.err = unread, err
	}
	return m
}

// answer reads struct nlmsgerr; code 0 is an acknowledgement.
func (m *message) answer(b []byte) error {
	if len(b) < 4 {
		return errShort
	}
	if code := int32(binary.NativeEndian.Uint32(b)); code != 0 {
		m.kind, m.err = refused, unix.Errno(-code)
	}
	return nil
}

// usersa reads struct xfrm_usersa_info, and after the struct that begins with it the
// attributes.
func (m *message) usersa(b []byte, whole int) error {
	if len(b) < whole {
		return errShort
	}
	info := nl.DeserializeXfrmUsersaInfo(bytes.Clone(b[:nl.SizeofXfrmUsersaInfo]))
	six := info.Family == unix.AF_INET6
	s := &m.state
	s.Src, s.Dst = address(info.Saddr, six), address(info.Id.Daddr, six)
	s.Protocol, s.Mode, s.SPI, s.ReqID = info.Id.Proto, info.Mode, nl.Swap32(info.Id.Spi), info.Reqid
	s.ESN, s.Window = info.Flags&nl.XFRM_STATE_ESN != 0, uint32(info.ReplayWindow)
	s.Selector = selector(&info.Sel)
	m.id = id{protocol: s.Protocol, spi: s.SPI, dst: s.Dst}
	m.count(info)
	err := eachAttribute(b[aligned(whole):], m.attribute)
	m.usage.Window = s.Window
	return err
}

func (m *message) count(info *nl.XfrmUsersaInfo) {
	m.counted = true
	m.usage = Usage{Packets: info.Curlft.Packets, BadICV: uint64(info.Stats.IntegrityFailed), Replayed: uint64(info.Stats.Replay), Late: uint64(info.Stats.ReplayWindow)}
}

// deleted reads struct xfrm_usersa_id.
func (m *message) deleted(b []byte) error {
	if len(b) < nl.SizeofXfrmUsersaId {
		return errShort
	}
	which := nl.DeserializeXfrmUsersaId(bytes.Clone(b[:nl.SizeofXfrmUsersaId]))
	m.id = id{protocol: which.Proto, spi: nl.Swap32(which.Spi), dst: address(which.Daddr, which.Family == unix.AF_INET6)}
	return eachAttribute(b[nl.SizeofXfrmUsersaId:], func(typ uint16, value []byte) error {
		switch {
		case typ == nl.XFRMA_MARK:
			return m.attribute(typ, value)
		case typ == nl.XFRMA_SA && len(value) >= nl.SizeofXfrmUsersaInfo:
			m.count(nl.DeserializeXfrmUsersaInfo(bytes.Clone(value[:nl.SizeofXfrmUsersaInfo])))
		}
		return nil
	})
}

// expired reads struct xfrm_user_expire. The kernel deletes a state at its hard lifetime
// without another message.
func (m *message) expired(b []byte) error {
	if len(b) < nl.SizeofXfrmUserExpire {
		return errShort
	}
	if hard := b[nl.SizeofXfrmUsersaInfo] != 0; hard {
		m.kind = isGone
	}
	return m.usersa(b, nl.SizeofXfrmUserExpire)
}

// eachAttribute calls f with the attributes of a message: length, type, and a value
// padded to four bytes.
func eachAttribute(b []byte, take func(typ uint16, value []byte) error) error {
	const header = unix.SizeofRtAttr
	for len(b) >= header {
		length, typ := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if length < header || length > len(b) {
			return errShort
		}
		if err := take(typ&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[header:length]); err != nil {
			return err
		}
		b = b[min(aligned(length), len(b)):]
	}
	return nil
}

// attribute takes over what a state has besides struct xfrm_usersa_info.
func (m *message) attribute(typ uint16, value []byte) (err error) {
	s, u32 := &m.state, binary.NativeEndian.Uint32
	wants := map[uint16]int{nl.XFRMA_ENCAP: nl.SizeofXfrmEncapTmpl, nl.XFRMA_MARK: nl.SizeofXfrmMark, nl.XFRMA_SA_DIR: 1,
		nl.XFRMA_REPLAY_VAL: nl.SizeofXfrmReplayState, nl.XFRMA_REPLAY_ESN_VAL: nl.SizeofXfrmReplayStateEsn}
	if len(value) < wants[typ] {
		return errShort
	}
	switch typ {
	case nl.XFRMA_ALG_AEAD:
		s.Cipher, err = algorithm(value, nl.SizeofXfrmAlgoAEAD)
	case nl.XFRMA_ALG_CRYPT:
		s.Cipher, err = algorithm(value, nl.SizeofXfrmAlgo)
	case nl.XFRMA_ALG_AUTH_TRUNC:
		s.Integrity, err = algorithm(value, nl.SizeofXfrmAlgoAuth)
	case nl.XFRMA_ALG_AUTH: // for old programs; the one above says more
		if s.Integrity == nil {
			s.Integrity, err = algorithm(value, nl.SizeofXfrmAlgo)
		}
	case nl.XFRMA_ENCAP:
		s.Encap = &keys.Encap{Type: binary.NativeEndian.Uint16(value), Src: binary.BigEndian.Uint16(value[2:]), Dst: binary.BigEndian.Uint16(value[4:])}
	case nl.XFRMA_MARK:
		m.id.mark, m.id.mask = u32(value), u32(value[4:])
	case nl.XFRMA_SA_DIR:
		s.Direction = map[byte]sa.Direction{1: sa.Inbound, 2: sa.Outbound}[value[0]]
	case nl.XFRMA_REPLAY_VAL: // struct xfrm_replay_state: oseq, seq, bitmap
		s.OSeq, s.Seq, s.Bitmap = uint64(u32(value)), uint64(u32(value[4:])), []uint32{u32(value[8:])}
	case nl.XFRMA_REPLAY_ESN_VAL:
		m.replayESN(value)
	}
	return err
}

// replayESN reads struct xfrm_replay_state_esn: the words of the bitmap, oseq, seq,
// their high halves, the window and the bitmap.
func (m *message) replayESN(b []byte) {
	at := func(i int) uint32 { return binary.NativeEndian.Uint32(b[4*i:]) }
	s := &m.state
	s.OSeq, s.Seq, s.Window = uint64(at(3))<<32|uint64(at(1)), uint64(at(4))<<32|uint64(at(2)), at(5)
	words := min(int(at(0)), len(b)/4-6)
	s.Bitmap, s.Ring = make([]uint32, words), true
	for i := range words {
		s.Bitmap[i] = at(6 + i)
	}
}

// algorithm reads one of the three structs: 64 bytes of name, the length of the key in
// bits, in the longer structs that of the ICV, and the key.
func algorithm(b []byte, header int) (*keys.Algorithm, error) {
	const nameLen = 64
	if len(b) < header {
		return nil, errShort
	}
	name, _, _ := bytes.Cut(b[:nameLen], []byte{0})
	bits := binary.NativeEndian.Uint32(b[nameLen:])
	a := &keys.Algorithm{Name: string(name)}
	if header > nl.SizeofXfrmAlgo {
		a.ICVBits = int(binary.NativeEndian.Uint32(b[nameLen+4:]))
	}
	if length := (uint64(bits) + 7) / 8; uint64(len(b)-header) < length {
		return nil, fmt.Errorf("%w: a key of %d bits", errShort, bits)
	} else if length > 0 {
		a.Key = sa.NewKey(b[header:][:length])
	}
	return a, nil
}

// selector reads the selector of a state. Any port mask but 0 counts as a full one; the
// NIC does not look at selectors.
func selector(k *nl.XfrmSelector) (s sa.Selector) {
	six := k.Family == unix.AF_INET6
	if k.PrefixlenS > 0 {
		s.Src = netip.PrefixFrom(address(k.Saddr, six), int(k.PrefixlenS)).Masked()
	}
	if k.PrefixlenD > 0 {
		s.Dst = netip.PrefixFrom(address(k.Daddr, six), int(k.PrefixlenD)).Masked()
	}
	s.Protocol = k.Proto
	const tcp, udp, sctp, dccp = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_DCCP
	if p := k.Proto; p == tcp || p == udp || p == sctp || p == dccp {
		s.SrcPorts, s.DstPorts = port(k.Sport, k.SportMask), port(k.Dport, k.DportMask)
	}
	return s
}

func port(value, mask uint16) sa.Ports {
	if mask == 0 {
		return sa.Ports{}
	}
	p := nl.Swap16(value)
	return sa.Ports{First: p, Last: p}
}

func address(a nl.XfrmAddress, six bool) netip.Addr {
	if six {
		return netip.AddrFrom16(a)
	}
	return netip.AddrFrom4([4]byte(a[:4]))
}

// String names a state as sa.ID names an SA.
func (i id) String() string {
	text := sa.ID{Protocol: sa.Protocol(i.protocol), SPI: sa.SPI(i.spi), Dst: i.dst}.String()
	if i.mark|i.mask != 0 {
		text += fmt.Sprintf(" mark 0x%x/0x%x", i.mark, i.mask)
	}
	return text
}
