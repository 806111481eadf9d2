// Package near finds the name that was meant by one that was mistyped.
package near

import "strings"

const (
	mostOff  = 2  // letters by which a name may be missed
	longest  = 40 // letters of a word that is looked at
	leastTip = 2  // letters of a name's beginning
)

// Name is the one of names that found probably stands for, or empty. It is at most two letters away
// and half of its own; of several it is the one whose letters are nearest: 17 was meant to be 16,
// not 12. If none is, it is the only one that begins with found.
func Name(found string, names []string) string {
	found = strings.ToLower(found)
	best, off, at := mostOff+1, 0, ""
	for _, n := range names {
		dist := distance(found, n)
		if dist < best && 2*dist <= len(n) || dist == best && at != "" && apart(found, n) < off {
			best, off, at = dist, apart(found, n), n
		}
	}
	if at != "" || len(found) < leastTip {
		return at
	}
	for _, n := range names {
		switch {
		case !strings.HasPrefix(n, found):
		case at != "":
			return ""
		default:
			at = n
		}
	}
	return at
}

// apart sums how far the letters of two names are from each other, place by place.
func apart(a, b string) int {
	sum := 0
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) {
			sum += 256
			continue
		}
		sum += max(int(a[i])-int(b[i]), int(b[i])-int(a[i]))
	}
	return sum
}

// distance counts the insertions, deletions and substitutions between two names (Levenshtein).
func distance(a, b string) int {
	if len(a) > longest {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := corner
			if a[i] != b[j] {
				cost++
			}
			corner = row[j+1]
			row[j+1] = min(cost, row[j]+1, corner+1)
		}
	}
	return row[len(b)]
}
