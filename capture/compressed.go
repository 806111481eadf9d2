package capture

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// How compressed files begin. Zstandard and LZ4 share the frames that carry something else,
// with which pzstd begins (RFC 8878, 3.1.2): the last four bits may be any.
const (
	magicGzip      = "\x1f\x8b"
	magicZstd      = "\x28\xb5\x2f\xfd"
	magicLZ4       = "\x04\x22\x4d\x18"
	magicSkippable = 0x184d2a50
)

// plain decompresses a capture, if it is compressed.
func plain(in *bufio.Reader) (*bufio.Reader, error) {
	magic := firstFrame(in)
	var text io.Reader
	var err error
	what := ""
	switch {
	case strings.HasPrefix(magic, magicGzip):
		what = "gzip"
		text, err = gzip.NewReader(in)
	case magic == magicZstd:
		what = "zstd"
		var d *zstd.Decoder
		d, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
		text = zstdReader{d}
	case magic == magicLZ4:
		text = lz4.NewReader(in)
	default:
		return in, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", what, unexpected(err))
	}
	return bufio.NewReaderSize(text, 1<<16), nil
}

// firstFrame is the first four bytes that are not in a skippable frame.
func firstFrame(in *bufio.Reader) string {
	const most = 16 // frames
	at := 0
	for range most {
		b, _ := in.Peek(at + 8)
		b = b[min(at, len(b)):]
		if len(b) < 8 || binary.LittleEndian.Uint32(b)&^0xf != magicSkippable {
			return string(b[:min(len(b), 4)])
		}
		at += 8 + int(min(binary.LittleEndian.Uint32(b[4:]), 1<<16))
	}
	return ""
}

// zstdReader says what to do about a file for which zstd itself wants a flag.
type zstdReader struct{ io.Reader }

func (z zstdReader) Read(b []byte) (int, error) {
	n, err := z.Reader.Read(b)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		err = fmt.Errorf("%w; give what zstd -dc --long=31 makes of the file", err)
	}
	return n, err
}

// others are files that people have in the place of captures, by how they begin, and what
// makes captures of them.
var others = []struct{ magic, what, remedy string }{
	{"\xfd7zXZ", "xz", "xz -dc"},
	{"\x5d\x00\x00", "lzma", "xz -dc"},
	{"BZh", "bzip2", "bzip2 -dc"},
	{"\x02\x21\x4c\x18", "lz4 in its legacy form", "lz4 -dc"},
	{"\x1f\x9d", "compress", "gzip -dc"},
	{magicGzip, "gzip in a compressed file", "gzip -dc"},
	{magicZstd, "zstd in a compressed file", "zstd -dc"},
	{"PK\x03\x04", "zip", "unzip -p"},
	{"snoop\x00", "snoop", "editcap"},
	{"btsnoop\x00", "btsnoop", "editcap"},
	{"GMBU", "Network Monitor's form", "editcap"},
	{"RTSS", "Network Monitor's form", "editcap"},
	{"TRSNIFF", "Sniffer's form", "editcap"},
	{"XCP\x00", "NetXRay's form", "editcap"},
	{"\x1c\x00\x01\xac", "Ixia's form", "editcap"},
	{"\xac\x01\x00\x1c", "Ixia's form", "editcap"},
}

// other says what a file is that is no capture, and what to do.
func other(in *bufio.Reader) string {
	head, _ := in.Peek(512)
	for _, o := range others {
		if bytes.HasPrefix(head, []byte(o.magic)) {
			return fmt.Sprintf("%s; give what %s makes of it", o.what, o.remedy)
		}
	}
	if isText(head) {
		return "text; tcpdump -w writes captures"
	}
	return fmt.Sprintf("one that starts with % x; editcap reads many other forms", head[:min(len(head), 4)])
}

// isText reports whether the beginning of a file is text, of which the last character may be
// cut.
func isText(head []byte) bool {
	for len(head) > 0 {
		r, n := utf8.DecodeRune(head)
		if r == utf8.RuneError && n == 1 && utf8.FullRune(head) || r < ' ' && !strings.ContainsRune("\t\n\v\f\r\x1b", r) {
			return false
		}
		head = head[n:]
	}
	return true
}
