package fragment

// advance lets time pass and forgets what is too old. The datagrams are in the order in
// which they began, so the old ones need no search. A clock that goes back by more than Age
// has been set, and tells no longer how old any datagram is.
func (b *Buffer) advance(now int64) {
	age := int64(b.limits.Age)
	anew := b.now-now > age
	if anew {
		b.now = now
	}
	b.now = max(b.now, now)
	for d := b.oldest; d != nil && (anew || b.now-d.born >= age); d = b.oldest {
		if d.lost == Held {
			b.stats.Expired++
		}
		b.forget(d)
	}
}

// find finds a datagram, or begins one.
func (b *Buffer) find(k key) *datagram {
	if d := b.datagrams[k]; d != nil {
		return d
	}
	if len(b.datagrams) == b.limits.Datagrams {
		b.evict(nil)
	}
	d := b.blank()
	*d = datagram{key: k, born: b.now, older: b.youngest}
	if b.youngest != nil {
		b.youngest.younger = d
	} else {
		b.oldest = d
	}
	b.youngest = d
	b.datagrams[k] = d
	return d
}

func (b *Buffer) blank() *datagram {
	if len(b.free) == 0 {
		return new(datagram)
	}
	d := b.free[len(b.free)-1]
	b.free = b.free[:len(b.free)-1]
	return d
}

// evict gives up the oldest datagram but the spared one. If memory is short there is one,
// since MinBytes is enough for the longest.
func (b *Buffer) evict(spared *datagram) {
	d := b.oldest
	if d == spared {
		d = d.younger
	}
	if d.lost == Held {
		b.stats.Evicted++
	}
	b.forget(d)
}

// forget takes a datagram out.
func (b *Buffer) forget(d *datagram) {
	d.giveBack(&b.memory)
	delete(b.datagrams, d.key)
	if d.older != nil {
		d.older.younger = d.younger
	} else {
		b.oldest = d.younger
	}
	if d.younger != nil {
		d.younger.older = d.older
	} else {
		b.youngest = d.older
	}
	b.free = append(b.free, d)
}
