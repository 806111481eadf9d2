package inspect

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// short formats a number in six columns, if necessary in thousands, millions and
// so on.
func short(n uint64) string {
	if n < 1000000 {
		return strconv.FormatUint(n, 10)
	}
	unit := -1
	for ; n >= 100000 || unit < 0; unit++ {
		n /= 1000
	}
	return fmt.Sprintf("%d%c", n, "kMGTP"[unit])
}

func byReason(failed map[string]uint64) string {
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(failed)) {
		parts = append(parts, fmt.Sprintf("%s %d", reason, failed[reason]))
	}
	return strings.Join(parts, ", ")
}
