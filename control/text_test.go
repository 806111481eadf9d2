package control

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// A list of any length has one header and a line for each SA; of few SAs it is a Page.
func TestWriteList(t *testing.T) {
	for _, n := range []int{0, 1, maxPage - 1, maxPage, maxPage + 1, 3 * maxPage} {
		var sas []SA
		for i := range n {
			sas = append(sas, SA{Name: fmt.Sprint("sa-", i), Origin: "file"})
		}
		var got, page strings.Builder
		err := WriteList(&got, func(yield func(SA, error) bool) {
			for _, s := range sas {
				if !yield(s, nil) {
					return
				}
			}
		})
		if err != nil || strings.Count(got.String(), "\n") != n+1 || strings.Count(got.String(), "NAME") != 1 {
			t.Errorf("%d SAs: %v, %d lines", n, err, strings.Count(got.String(), "\n"))
		}
		if err := (Page{SAs: sas}).WriteText(&page); err != nil || n <= maxPage && got.String() != page.String() {
			t.Errorf("%d SAs: %v, %s", n, err, got.String())
		}
	}
	broken := errors.New("broken")
	if err := WriteList(new(strings.Builder), func(yield func(SA, error) bool) { yield(SA{}, broken) }); err != broken {
		t.Error(err)
	}
}
