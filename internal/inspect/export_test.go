package inspect

const (
	BatchFrames = batchFrames
	MostAside   = mostAside
)

// Batches makes batches of at most n frames.
func (i *Inspector) Batches(n int) { i.batch = n }
