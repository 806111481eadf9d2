// Package top is a live view of a running appliance in a terminal: what it moves, how it
// judges, and its SAs, failing ones first. All that it knows comes over the control
// socket.
package top

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gdamore/tcell/v3"
	"github.com/gdamore/tcell/v3/color"

	"tapsec/control"
)

const pause = time.Second // between two readings

// Run shows a client's appliance until ctx ends or the user quits. However it ends, it
// leaves the terminal as it was. It uses colors only if color is true.
func Run(ctx context.Context, c *control.Client, socket string, colored bool) error {
	screen, err := tcell.NewScreen()
	if err == nil {
		err = screen.Init()
	}
	if err != nil {
		return fmt.Errorf("the terminal cannot be used (%w): TERM must say what it is; tapsec counters needs none", err)
	}
	defer screen.Fini() // even after a panic
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	readings := make(chan reading)
	go read(ctx, c, readings)
	m, looks := model{socket: socket}, looksOf(colored)
	for {
		m.show(screen, looks)
		select {
		case <-ctx.Done():
			return nil
		case r := <-readings:
			m.take(r)
		case e, open := <-screen.EventQ():
			if !open {
				return nil
			}
			switch e := e.(type) {
			case *tcell.EventResize:
				screen.Sync()
			case *tcell.EventError:
				return fmt.Errorf("the terminal is gone: %w", e)
			case *tcell.EventKey:
				if m.key(e) {
					return nil
				}
			}
		}
	}
}

// read asks once a second, in a goroutine of its own, so that keys work even if the
// appliance does not answer.
func read(ctx context.Context, c *control.Client, to chan<- reading) {
	for {
		select {
		case to <- ask(c):
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// ask reads all there is. A panic becomes an error, since this goroutine cannot restore
// the terminal.
func ask(c *control.Client) (r reading) {
	defer func() {
		if p := recover(); p != nil {
			r.err = fmt.Errorf("top has a mistake: %v", p)
		}
	}()
	all, err := c.Counters("")
	if err != nil {
		return reading{err: err}
	}
	r = reading{at: time.Now(), counters: map[string][]control.Sample{}}
	for _, counter := range all {
		r.counters[strings.TrimPrefix(counter.Name, "tapsec_")] = counter.Samples
	}
	r.events, r.err = c.Events(1)
	return r
}

// key acts on a key, and reports whether it is for quitting.
func (m *model) key(e *tcell.EventKey) (quit bool) {
	switch e.Key() {
	case tcell.KeyCtrlC, tcell.KeyCtrlD:
		return true
	case tcell.KeyUp:
		m.move(-1)
	case tcell.KeyDown:
		m.move(1)
	case tcell.KeyPgUp:
		m.move(-m.shown)
	case tcell.KeyPgDn:
		m.move(m.shown)
	case tcell.KeyEnter:
		m.turn()
	case tcell.KeyEscape:
		if m.explains {
			m.turn()
		}
	}
	switch e.Str() {
	case "q":
		return true
	case "e":
		m.turn()
	case "k":
		m.move(-1)
	case "j":
		m.move(1)
	}
	return false
}

// turn goes from the list to the explanation, or back.
func (m *model) turn() { m.explains, m.first = !m.explains, 0 }

// move chooses another SA, or scrolls.
func (m *model) move(by int) {
	rows := m.rows()
	switch {
	case m.explains:
		m.first += by
	case len(rows) > 0:
		m.selected = rows[max(0, min(m.choose(rows)+by, len(rows)-1))].name
	}
}

// looksOf returns the styles. Without colors what fails is bold or underlined.
func looksOf(colored bool) map[look]tcell.Style {
	normal := tcell.StyleDefault
	if !colored {
		return map[look]tcell.Style{plain: normal, head: normal.Reverse(true), alarm: normal.Bold(true), notice: normal.Underline(true), chosen: normal}
	}
	return map[look]tcell.Style{plain: normal, head: normal.Reverse(true), alarm: normal.Foreground(color.Red).Bold(true),
		notice: normal.Foreground(color.Yellow), chosen: normal.Bold(true)}
}

func (m *model) show(screen tcell.Screen, looks map[look]tcell.Style) {
	width, height := screen.Size()
	screen.Clear()
	for y, l := range m.view(width, height) {
		screen.PutStrStyled(0, y, pad(l.text, width), looks[l.look])
	}
	screen.Show()
}
