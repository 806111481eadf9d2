package tap

import (
	"reflect"
	"testing"
)

// A sum, and what others read, leave no count out.
func TestTallyHasEveryCount(t *testing.T) {
	var one, sum Tally
	for v, i := reflect.ValueOf(&one).Elem(), 0; i < v.NumField(); i++ {
		if v.Field(i).CanInt() {
			v.Field(i).SetInt(int64(i + 1))
		} else {
			v.Field(i).SetUint(uint64(i + 1))
		}
	}
	var public counters
	for range 2 {
		sum.Add(one)
		public.store(&sum)
	}
	for v, i := reflect.ValueOf(public.load()), 0; i < v.NumField(); i++ {
		if got, want := v.Field(i).Convert(reflect.TypeFor[int64]()).Int(), int64(2*(i+1)); got != want {
			t.Errorf("%s: %d, want %d", v.Type().Field(i).Name, got, want)
		}
	}
}
