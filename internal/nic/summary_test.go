package nic

import (
	"reflect"
	"testing"

	"tapsec/tap"
)

// A summary leaves none of the workers' counts out.
func TestSummaryAddsEveryCount(t *testing.T) {
	var one, sum tap.Tally
	for v, i := reflect.ValueOf(&one).Elem(), 0; i < v.NumField(); i++ {
		if v.Field(i).CanInt() {
			v.Field(i).SetInt(int64(i + 1))
		} else {
			v.Field(i).SetUint(uint64(i + 1))
		}
	}
	add(&sum, one)
	add(&sum, one)
	for v, i := reflect.ValueOf(sum), 0; i < v.NumField(); i++ {
		if got, want := v.Field(i).Convert(reflect.TypeFor[int64]()).Int(), int64(2*(i+1)); got != want {
			t.Errorf("%s: %d, want %d", v.Type().Field(i).Name, got, want)
		}
	}
}
