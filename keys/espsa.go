package keys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"tapsec/sa"
)

// The columns of Wireshark's table esp_sa. Newer versions add the last two.
const (
	colVersion = iota
	colSrc
	colDst
	colSPI
	colCipher
	colCipherKey
	colIntegrity
	colIntegrityKey
	colNumberLen
	colNumberHigh
)

// noChecking is an ICV that Wireshark skips unchecked.
const noChecking = "ANY %d bit authentication [no checking]"

// parseESPSA reads a table: for each SA a line of quoted, comma-separated columns. It does not
// tell modes.
func parseESPSA(text string) *found {
	f := &found{}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		p := parsed{SA: newSA(), line: i + 1}
		p.Protocol, p.Mode = sa.ESP, sa.Auto
		p.err = readRow(&p, columns(line))
		f.all = append(f.all, p)
	}
	return f
}

// columns splits a row. Inside quotes \xHH stands for a byte.
func columns(line string) []string {
	var cols []string
	var b strings.Builder
	inside := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '"':
			inside = !inside
		case c == ',' && !inside:
			cols = append(cols, strings.TrimSpace(b.String()))
			b.Reset()
		case c == '\\' && inside && i+3 < len(line) && line[i+1] == 'x':
			n, err := strconv.ParseUint(line[i+2:i+4], 16, 8)
			if err == nil {
				b.WriteByte(byte(n))
				i += 3
			}
		default:
			b.WriteByte(c)
		}
	}
	return append(cols, strings.TrimSpace(b.String()))
}

func readRow(p *parsed, cols []string) error {
	if len(cols) < colIntegrityKey+1 {
		return fmt.Errorf("expected %d columns, found %d", colIntegrityKey+1, len(cols))
	}
	if err := tableEnds(p, cols); err != nil {
		return err
	}
	if strings.ContainsAny(cols[colSPI], "*?") {
		return errors.New("an SPI with a wildcard is not supported")
	}
	spi, err := strconv.ParseUint(cols[colSPI], 0, 32)
	if err != nil {
		return errors.New("expected an SPI of 32 bits like 0x0000c001")
	}
	p.SPI = uint32(spi)
	if p.EncryptionKey, err = tableKey(cols[colCipherKey]); err != nil {
		return fmt.Errorf("encryption key: %w", err)
	}
	if p.IntegrityKey, err = tableKey(cols[colIntegrityKey]); err != nil {
		return fmt.Errorf("authentication key: %w", err)
	}
	word, err := tableSuite(cols[colCipher], cols[colIntegrity], p.EncryptionKey.Len())
	if err != nil {
		return err
	}
	if p.Suite, err = sa.ParseSuite(sa.ESP, word); err != nil {
		return err
	}
	if cols[colCipher] == oldGCM && !strings.HasPrefix(cols[colIntegrity], "ANY ") {
		p.doubts = append(p.doubts, oldGCM+" does not say how long its ICV is, and is taken for 16 octets")
	}
	for _, col := range []int{colCipherKey, colIntegrityKey} {
		if bareHex.MatchString(cols[col]) {
			p.doubts = append(p.doubts, "a key has hexadecimal digits without 0x, and is taken as Wireshark takes it: for the characters themselves")
		}
	}
	if p.Suite.AuthLen == 0 {
		p.IntegrityKey = sa.Key{} // Wireshark does not care what stands there
	}
	return readNumbers(p, cols)
}

// oldGCM is the former name of GCM, which leaves the ICV's length to the other column.
const oldGCM = "AES-GCM [RFC4106]"

// bareHex is a key that was hardly meant as characters.
var bareHex = regexp.MustCompile(`^(?:[0-9a-fA-F]{2}){8,}$`)

// tableEnds reads version and addresses.
func tableEnds(p *parsed, cols []string) error {
	for i, end := range []*netip.Addr{&p.Src, &p.Dst} {
		text := cols[colSrc+i]
		if net, err := prefix(text); err == nil && net.IsSingleIP() {
			*end = net.Addr().WithZone("")
		} else if text != "*" && text != "" {
			p.lost = append(p.lost, "a network in the place of an address")
		}
		if v := cols[colVersion]; end.IsValid() && (v == "IPv4" && end.Is6() || v == "IPv6" && end.Is4()) {
			return fmt.Errorf("expected an %s address, as the first column says, found %s", v, sa.Quote(text))
		}
	}
	if p.Src.IsValid() && !p.Dst.IsValid() {
		p.Src, p.lost = netip.Addr{}, append(p.lost, sourceAlone)
	}
	return nil
}

// readNumbers reads the columns on extended sequence numbers, if there are any.
func readNumbers(p *parsed, cols []string) error {
	if len(cols) <= colNumberLen || cols[colNumberLen] == "" || cols[colNumberLen] == "32-bit" {
		return nil
	}
	if cols[colNumberLen] != "64-bit" {
		return errors.New("expected sequence numbers of 32-bit or 64-bit")
	}
	p.ESN = true
	if len(cols) > colNumberHigh && cols[colNumberHigh] != "" {
		high, err := strconv.ParseUint(strings.TrimPrefix(cols[colNumberHigh], "0x"), 16, 32)
		if err != nil {
			return errors.New("expected the high half of the sequence number in hexadecimal")
		}
		p.SeqHigh = uint32(high)
	}
	return nil
}

// address is the address of a column; a wildcard is none.
func address(text string) netip.Addr {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

// tableKey reads a key as Wireshark does: hexadecimal after 0x, else the
// characters themselves.
func tableKey(text string) (sa.Key, error) {
	switch {
	case text == "", text == "0x": // save-keys writes the latter
		return sa.Key{}, nil
	case strings.HasPrefix(text, "0x"), strings.HasPrefix(text, "0X"):
		return sa.ParseKey(text)
	}
	return sa.NewKey([]byte(text)), nil
}

// tableSuite gives the suite of two columns.
func tableSuite(cipher, integrity string, keyLen int) (string, error) {
	if cipher == oldGCM {
		bits := 128
		_, _ = fmt.Sscanf(integrity, noChecking, &bits)
		cipher, integrity = fmt.Sprintf("AES-GCM with %d octet ICV [RFC4106]", bits/8), "NULL"
	}
	c, icv, err := espTable.cipher(cipher)
	if err != nil {
		return "", err
	}
	word, err := c.keyword(keyLen, icv*8)
	if err != nil || strings.EqualFold(integrity, "NULL") {
		return word, err
	}
	if with := espTable.integrity(integrity); with != "" {
		return word + "-" + with, nil
	}
	return "", fmt.Errorf("the authentication %s cannot be checked", sa.Quote(integrity))
}

// WriteESPSA prints Wireshark's table esp_sa, keys included. Version 4.0 reads it; SAs with ESN
// or ChaCha20 need 4.2 (needsWireshark42). What it cannot hold becomes a comment: AH, and suites
// that it does not know. Errors are the writer's.
func WriteESPSA(w io.Writer, sas []*sa.SA) error {
	return writeLines(w, sas, tableRow)
}

// ESPSecrets is the table as captures carry it (capture.SecretESP): every row has all
// ten columns, and what the table cannot hold is left out.
func ESPSecrets(sas []*sa.SA) []byte {
	var b bytes.Buffer
	for _, s := range sas {
		row, err := tableRow(s)
		if err != nil {
			continue
		}
		if b.WriteString(row); !needsWireshark42(s) {
			b.WriteString(`,"32-bit","00000000"`)
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

func tableRow(s *sa.SA) (string, error) {
	if s.Protocol != sa.ESP {
		return "", errors.New("the table holds ESP only")
	}
	cipher, integrity := tableNames(s.Suite)
	if cipher == "" {
		return "", fmt.Errorf("no name in Wireshark for %s", s.Suite.Name)
	}
	version := "IPv4"
	if s.Dst.Is6() {
		version = "IPv6"
	}
	row := []string{version, tableAddress(s.Src), tableAddress(s.Dst), fmt.Sprintf("0x%08x", s.SPI),
		cipher, hexKey(s.EncryptionKey), integrity, hexKey(s.IntegrityKey)}
	if needsWireshark42(s) {
		bits := 32
		if s.ESN {
			bits = 64
		}
		row = append(row, fmt.Sprintf("%d-bit", bits), fmt.Sprintf("%08x", s.HighHalf()))
	}
	return `"` + strings.Join(row, `","`) + `"`, nil
}

// needsWireshark42 reports whether a row of the table is for version 4.2 and later:
// it has two more columns.
func needsWireshark42(s *sa.SA) bool {
	return s.ESN || s.Suite.Cipher == sa.ChaCha20Poly1305
}

func tableAddress(a netip.Addr) string {
	if !a.IsValid() {
		return "*"
	}
	return a.String()
}

func hexKey(k sa.Key) string {
	if k.Len() == 0 {
		return ""
	}
	return fmt.Sprintf("0x%x", k.Bytes())
}

// tableNames gives the names of a suite's algorithms in the table.
func tableNames(s sa.Suite) (cipher, integrity string) {
	cipher, integrity = espTable.of(s)
	switch {
	case s.Integrity == sa.NoIntegrity:
		integrity = "NULL"
	case integrity == "":
		integrity = fmt.Sprintf(noChecking, s.ICVLen*8)
	}
	return cipher, integrity
}
