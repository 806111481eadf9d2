package control_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"tapsec/control"
	server "tapsec/internal/control"
	"tapsec/sa"
)

// nic stands for `tapsec run --control PATH` with a table for one SA.
type nic struct {
	server.SAs
	held []*sa.SA
}

func (n *nic) Add(sas []*sa.SA) (added []control.SA, err error) {
	if len(n.held)+len(sas) > 1 {
		return nil, sa.ErrFull
	}
	n.held = append(n.held, sas...)
	for _, s := range sas {
		added = append(added, control.SA{Name: s.Name, ID: s.ID(), Offloaded: true, Handle: 1})
	}
	return added, nil
}

func (n *nic) Delete(control.Ref, bool) error {
	n.held = nil
	return nil
}

// An SA is added, found to fill the table, and deleted.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "tapsec.sock")
	running, err := server.Open(path, server.Config{SAs: &nic{}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer running.Close()

	client, err := control.Dial(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	suite, _ := sa.ParseSuite(sa.ESP, "aes128gcm16")
	site := &sa.SA{
		Name: "site", SPI: 0x1001, Dst: netip.MustParseAddr("192.0.2.1"), Protocol: sa.ESP, Mode: sa.Tunnel, Suite: suite,
		EncryptionKey: sa.NewKey(make([]byte, suite.EncryptionKeyLen())), PadCheck: true, Window: sa.DefaultWindow,
	}
	added, err := client.Add([]*sa.SA{site})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(added[0].Name, added[0].SPI, "handle", added[0].Handle)
	other := *site
	other.Name, other.SPI = "other", 0x1002
	_, err = client.Add([]*sa.SA{&other})
	fmt.Println("full:", errors.Is(err, sa.ErrFull))
	fmt.Println("deleted:", client.Delete(control.RefOf(site), false))
	// Output:
	// site 0x00001001 handle 1
	// full: true
	// deleted: <nil>
}
