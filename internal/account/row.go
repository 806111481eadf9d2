package account

import (
	"cmp"
	"slices"
	"strconv"
)

// Row is the account of one SA, or of one header that no SA matches. Its numbers are those
// with a valid ICV and those of frames that nobody checked; if no ICV was valid and more
// frames failed, they are those of the failed frames.
type Row struct {
	SA       string `json:"sa"` // empty: no SA matches
	Protocol string `json:"protocol"`
	SPI      string `json:"spi"`
	Src      string `json:"src"`
	Dst      string `json:"dst"`

	Good      uint64            `json:"good"`
	Failed    map[string]uint64 `json:"failed"` // by reason
	LeftAlone uint64            `json:"left_alone"`
	NotJudged uint64            `json:"not_judged"`

	Authentic      bool   `json:"authentic"` // some number had a valid ICV
	FirstSeq       string `json:"first_seq"` // the lowest; empty if there is none
	LastSeq        string `json:"last_seq"`  // the highest
	Lost           uint64 `json:"lost"`      // from the lowest to the highest: in no frame
	Duplicates     uint64 `json:"duplicates"`
	Late           uint64 `json:"late"`
	MaxLate        uint64 `json:"max_late"`
	SmallestWindow uint64 `json:"smallest_window"` // packets
	Window         uint32 `json:"window"`          // the SA's own, in packets; 0: none
	Replayed       uint64 `json:"replayed"`
	Wraps          uint64 `json:"wraps"` // of the 32 bits in the header
	Exact          bool   `json:"exact"` // false: there were too many gaps to remember, and the six counts are near

	RekeyedTo string    `json:"rekeyed_to"` // SA, or SPI where it has none; empty: none followed
	Diagnosis []Finding `json:"diagnosis"`

	Handle uint32 `json:"-"` // of the SA
	Header Header `json:"-"`
}

// Finding is one thing found out about why frames of an SA fail.
type Finding struct {
	Certain  bool   `json:"certain"`
	Cause    string `json:"cause"`
	Sentence string `json:"sentence"`
}

// Rows are the accounts of all senders, by first frame, and what is counted together.
func (a *Account) Rows() ([]Row, Others) {
	all := a.all()
	next := rekeys(all)
	rows := make([]Row, 0, len(all))
	for _, s := range all {
		row := s.row()
		if to := next[s]; to != nil {
			row.RekeyedTo = cmp.Or(to.name(), to.header.SPI.String())
		}
		rows = append(rows, row)
	}
	return rows, a.others
}

// Silent are the names of the SAs that sent nothing.
func (a *Account) Silent() (names []string) {
	for _, s := range a.known {
		if s.frames == 0 {
			names = append(names, s.sa.Name)
		}
	}
	slices.Sort(names)
	return names
}

func (s *sender) name() string {
	if s.sa == nil {
		return ""
	}
	return cmp.Or(s.sa.Name, s.header.SPI.String())
}

func (s *sender) row() Row {
	r := Row{SA: s.name(), Protocol: s.header.Protocol.String(), SPI: s.header.SPI.String(), Handle: s.handle, Header: s.header,
		Src: s.header.Src.String(), Dst: s.header.Dst.String(),
		Good: s.good, Failed: map[string]uint64{}, LeftAlone: s.leftAlone, NotJudged: s.notJudged,
		Authentic: s.proven, Replayed: s.replayed, Exact: true, Diagnosis: []Finding{}}
	for reason, n := range s.failed {
		r.Failed[reason.String()] = n
	}
	if s.sa != nil {
		r.Window = s.own().Size()
	}
	n := &s.came
	if !s.proven && s.failing.n > n.n {
		n = &s.failing
	}
	if n.n == 0 {
		return r
	}
	r.FirstSeq, r.LastSeq = strconv.FormatUint(n.low, 10), strconv.FormatUint(n.high, 10)
	r.Lost = n.high - n.low + 1 - n.n
	if n == &s.came {
		r.Lost -= s.failing.outside(&n.set, n.low, n.high)
	}
	r.Duplicates, r.Late, r.MaxLate, r.SmallestWindow = n.duplicates, n.late, n.maxLate, n.maxLate+1
	r.Wraps = n.high>>32 - n.low>>32
	r.Exact = n.exact() && s.failing.exact()
	return r
}
