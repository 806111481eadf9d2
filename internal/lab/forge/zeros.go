package forge

// Zeros is a source of nothing random, for frames that are the same each time. A
// block cipher's IVs are zero with it: no key that is worth something may be used.
type Zeros struct{}

// Read fills b with zeros.
func (Zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
